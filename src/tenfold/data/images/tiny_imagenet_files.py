"""Classes of Tiny ImageNet that the two compact sets take."""

CLASSES_20 = (
    ("n01443537", "goldfish"),
    ("n02056570", "king penguin"),
    ("n02165456", "ladybug"),
    ("n02279972", "monarch"),
    ("n02129165", "lion"),
    ("n02480495", "orangutan"),
    ("n02504458", "African elephant"),
    ("n02509815", "lesser panda"),
    ("n01917289", "brain coral"),
    ("n04146614", "school bus"),
    ("n04285008", "sports car"),
    ("n02917067", "bullet train"),
    ("n04311004", "steel arch bridge"),
    ("n03662601", "lifeboat"),
    ("n04562935", "water tower"),
    ("n04507155", "umbrella"),
    ("n04398044", "teapot"),
    ("n07873807", "pizza"),
    ("n07753592", "banana"),
    ("n09428293", "seashore"),
)
"""Classes of tiny_imagenet_20 in label order: WordNet id, readable name."""

FSCIL_ORDER_SEED = 2210
"""tiny_imagenet_fscil: sorted wnids in the order of RandomState(seed).permutation(200)."""
