"""Names of ADE20K: 150 classes of scene parsing, which of them are things, 83 words of parts."""

from __future__ import annotations


def _names(text: str) -> tuple[str, ...]:
    return tuple(" ".join(name.split()) for name in text.split(","))


SCENE = _names("""
    wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk,
    person, earth, door, table, mountain, plant, curtain, chair, car, water, painting, sofa,
    shelf, house, sea, mirror, rug, field, armchair, seat, fence, desk, rock, wardrobe, lamp,
    bathtub, railing, cushion, base, box, column, signboard, chest of drawers, counter, sand,
    sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool
    table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet,
    flower, book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair,
    boat, bar, arcade machine, hovel, bus, towel, light, truck, tower, chandelier, awning,
    streetlight, booth, television receiver, airplane, dirt track, apparel, pole, land,
    bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain, conveyer
    belt, canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag,
    minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot, animal, bicycle,
    lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray,
    ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass,
    clock, flag
""")
"""Classes in the order of scene parsing, numbers 1 to 150 in its label maps."""
PARTS = _names("""
    frame, cistern, front, stem, mirror, aperture, stove, apron, monitor, arm, stretcher, gaze,
    column, right arm, right foot, right hand, right leg, mouse, computer case, back, back
    pillow, muntin, backplate, cord, neck, corner pocket, base, taillight, tap, opening, handle,
    oven, sash, head, headboard, headlight, screen, blade, pane, highlight, diffusor, hinge,
    seat, seat base, seat cushion, top, housing, bowl, torso, door, shade, door frame, drawer,
    shelf, bulb, bumper, earmuffs, side, tube, side rail, side pocket, button panel, keyboard,
    upper sash, knob, skirt, face, landing gear, faucet, canopy, left arm, left foot, left hand,
    left leg, leg, license plate, lid, light source, lower sash, wheel, window, windshield,
    footboard
""")
"""Words of parts in ViRReq's order; eleven of them are also classes."""
STUFF = frozenset(
    _names("""
    wall, building, sky, floor, tree, ceiling, road, grass, sidewalk, earth, mountain, plant,
    water, house, sea, rug, field, rock, base, sand, skyscraper, grandstand, path, runway,
    stairway, river, bridge, blind, hill, bar, hovel, tower, dirt track, land, escalator,
    buffet, poster, stage, conveyer belt, canopy, swimming pool, waterfall, tent, cradle, tank,
    lake, blanket, pier, crt screen, shower
""")
)
"""Classes that are not countable; the other 100 are those of ADE20K's instance task."""
THINGS = frozenset(SCENE) - STUFF
