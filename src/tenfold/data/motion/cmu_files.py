"""The 48 files of the CMU motion benchmark: their git blob ids and numbers of frames.

Blob ids: the tree ``data/cmu_mocap`` of the repository below at COMMIT. A blob id is
``sha1("blob <size>\\0" + content)``, so it proves a download byte for byte. Frames: counted in
``benchmark.npz``; 0 where the copy we could read lacks the file.
"""

REPOSITORY = "chaneyddtt/Convolutional-Sequence-to-Sequence-Model-for-Human-Dynamics"
COMMIT = "f27ccb4ed5b0568cde2b7cf096dd2683c901b4d8"

COLUMNS = 117
"""Numbers a frame: 3 of translation, then 38 exponential maps."""

FILES: dict[str, tuple[str, int]] = {
    "test/basketball/basketball_1": ("d73b5abad6405348fac2627344cc3deab70e3c97", 577),
    "test/basketball_signal/basketball_signal_1": ("2891afee11fb91c091202e52c085797cb92bccd9", 0),
    "test/directing_traffic/directing_traffic_1": ("8792b62ba61d3ad9055ce86e82541303fb758fa4", 0),
    "test/jumping/jumping_1": ("ea994e6e2a4ed19f9c4416f99dcb11ecb0de20a2", 2086),
    "test/running/running_1": ("80f07306d91c537555ca1941599a68cef1d34ac7", 163),
    "test/soccer/soccer_1": ("eb492aec6ca215f41b6c5f4ab16535de4b138b0c", 598),
    "test/walking/walking_1": ("6b857f0f91b62cb63b39253bf1776ed21fd08cf9", 359),
    "test/washwindow/washwindow_1": ("2c52ffc483bf1fca325f4e732f5ef7448ce098f0", 2754),
    "train/basketball/basketball_1": ("bf8d2b97d51eb3550ebba2af5ef84c443e96901c", 722),
    "train/basketball/basketball_2": ("72f36f55ca43d11487c5f69ce83926c119a7a96d", 528),
    "train/basketball/basketball_3": ("5d7cd5a2b7a0d0c75d30ffa701a3468f6a2f1d27", 397),
    "train/basketball/basketball_4": ("67cc7ca31a44e829394ad48eb6a739e61e190c50", 386),
    "train/basketball/basketball_5": ("4a839d1812273bb8d75da58d219d6c579b356fde", 403),
    "train/basketball_signal/basketball_signal_1": (
        "c2afa3307408b5eee18cea66e9509aff54e11e1f",
        3120,
    ),
    "train/basketball_signal/basketball_signal_2": (
        "af21c4d5efdfe13c556fea3b5e03f025c08b1d51",
        3151,
    ),
    "train/basketball_signal/basketball_signal_3": (
        "fa7dbbf541eda7fbe45a41eea5e502df88869a94",
        3232,
    ),
    "train/basketball_signal/basketball_signal_4": (
        "8c9c666114901deae9555cbfba3eb6f1bfe70e09",
        3158,
    ),
    "train/basketball_signal/basketball_signal_5": (
        "611ca8ab8f7b364b9b2cf90bd720cf6688bdfdee",
        3239,
    ),
    "train/directing_traffic/directing_traffic_1": (
        "d0d2b400d336017c95d3830f0a314660e3669d6d",
        3029,
    ),
    "train/directing_traffic/directing_traffic_2": ("199934507a3d65b4066995e0b016840b31b000b7", 0),
    "train/directing_traffic/directing_traffic_3": ("99a0fee3a52b41c404a9a6850c2ed0a70bc4bcb4", 0),
    "train/directing_traffic/directing_traffic_4": (
        "99a902427e1bf51815462463f15217b2df3fe26e",
        3703,
    ),
    "train/directing_traffic/directing_traffic_5": ("d21c3bbe9a882febdc612b7f25ca717c93a58c97", 0),
    "train/jumping/jumping_1": ("d73a03a7fff82eefd7e7dff974ac18fc0b560832", 416),
    "train/jumping/jumping_2": ("e8675161a6d06f0129e27c6102670d7324ba032c", 1505),
    "train/jumping/jumping_3": ("c15efa8e6f0604a950cac94042895f1538e6b5ed", 427),
    "train/jumping/jumping_4": ("96613e0f7b2f4580f782ca3bfc3da7f4534965cc", 337),
    "train/jumping/jumping_5": ("abc06f31682f295fd2e82e986b67f5b05a60889c", 352),
    "train/running/running_1": ("30ecc572ec5dde71d3e37534b700c98a6aa97ef1", 168),
    "train/running/running_2": ("25ff483f03017f45ee1ba963a993fa5bdd21ae92", 190),
    "train/running/running_3": ("50a56c19de5e5ce2bd98cf13f121dbccfa7cf5a4", 163),
    "train/running/running_4": ("423152030df22b22b9d0675e09727d7bdf30cc94", 166),
    "train/running/running_5": ("f8ca12c7bef14bf6bf8a2f7d1ea19b41a2ae3f3d", 151),
    "train/soccer/soccer_1": ("955495639d2e0e269ac8f29f8568343f59599669", 802),
    "train/soccer/soccer_2": ("b0cae26d15dfa002f2591777eb004cd465c44525", 591),
    "train/soccer/soccer_3": ("3d8b48e23a2c6caf5191ab6c9564b9c8ef950188", 363),
    "train/soccer/soccer_4": ("68f329992e6c181c7a6b2d9b4f7fd74c5cfe6ae6", 437),
    "train/soccer/soccer_5": ("1944d2ec7fde1a6eca2b9e589ae8ec6d498dce47", 573),
    "train/walking/walking_1": ("64eae4e0f85c3b45a505bf203b38b15c7c14ba80", 344),
    "train/walking/walking_2": ("02d212ced67912593b37a717fa43fbdc55e076dc", 599),
    "train/walking/walking_3": ("5212e3702803e03ddf164e33b14211c8fb97e158", 495),
    "train/walking/walking_4": ("20b284f8065a16158e3d7e8b24487f7650bd22f4", 317),
    "train/walking/walking_5": ("f025a2635207e77461a08e9ae4c70fdcc80f722d", 330),
    "train/washwindow/washwindow_1": ("2e7af9b41d8507c10601b9418d7e265fb16e4517", 0),
    "train/washwindow/washwindow_2": ("e1fe77e6fed92d87c2d4a44766e7b8977f1e3ded", 0),
    "train/washwindow/washwindow_3": ("9277cc26d95d0b1b369938611f6d58bebc2f066a", 0),
    "train/washwindow/washwindow_4": ("414e63e07f90af0e14b425be92cab67da995e3a5", 0),
    "train/washwindow/washwindow_5": ("151159634ce0404aef942a11104480f1bac5294b", 0),
}
"""``<split>/<action>/<action>_<i>`` -> (git blob id, frames or 0 if unknown)."""
