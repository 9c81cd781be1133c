"""Build `mfmc_ray/identities/data/catalogue.npy`: seeds whose neutral rendering resembles none of the identity model's own references.

    python tools/build_catalogue.py [MINUTES]
    python tools/build_catalogue.py --on [MINUTES]  # keep what there is, and search on for whom there are too few of

Runs admit identities against their own known faces again; the catalogue only says where to look first. Build it anew after the identity
model, the renderer or a recognizer has changed, then look at all of it and put into STRUCK who is no likely person. It is balanced: as far
as the time allows, every cell of sex × age band × tone band gets the same number of seeds.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from mfmc_ray.config import FindConfig
from mfmc_ray.faces.pack import EMBEDDERS, load_pack
from mfmc_ray.identities.model import load_model
from mfmc_ray.identities.sample import Identity, sample
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.certificate import Guard
from mfmc_ray.known.index import KnownFaces
from mfmc_ray.pipeline.check import OutputCheck
from mfmc_ray.pipeline.identities import IdentityStage
from mfmc_ray.pipeline.pool import NEAREST_FAKES
from mfmc_ray.swap.render import MorphSwapper

OUT = Path(__file__).parents[1] / "mfmc_ray/identities/data/catalogue.npy"
PROCESSES = 2
PER_CELL = 125
TRIES_PER_CELL = 2500
BATCH = 16
ON = 600_000
"""The first seed that is tried when a search goes on."""

# Looked at, one by one, on sheets of all that passed, on heads and on portraits of their sex, age and tone: nobody would take them for a
# person like that, or they have a streak, a patch or brows like painted. Of this model only; some as earlier recipes drew them.
# fmt: off
STRUCK = {
    17, 45, 50, 55, 60, 84, 86, 109, 112, 120, 157, 195, 232, 234, 253, 273, 277, 291, 294, 322, 346, 367, 394, 401, 427, 467, 470, 474,
    488, 490, 493, 519, 533, 537, 553, 557, 587, 605, 658, 663, 676, 716, 727, 738, 755, 785, 859, 881, 896, 905, 918, 930, 964, 1024, 1033,
    1066, 1089, 1127, 1135, 1144, 1161, 1178, 1217, 1268, 1281, 1302, 1355, 1370, 1371, 1384, 1430, 1472, 1500, 1517, 1560, 1566, 1573,
    1596, 1603, 1605, 1606, 1643, 1647, 1655, 1668, 1674, 1715, 1728, 1736, 1737, 1762, 1763, 1784, 1809, 1841, 1872, 1898, 1908, 1933,
    1956, 2010, 2019, 2031, 2044, 2071, 2073, 2086, 2098, 2131, 2179, 2200, 2230, 2252, 2273, 2293, 2301, 2366, 2368, 2455, 2474, 2478,
    2479, 2501, 2508, 2516, 2519, 2539, 2548, 2553, 2582, 2621, 2625, 2651, 2663, 2670, 2712, 2723, 2729, 2738, 2744, 2819, 2831, 2862,
    2869, 2919, 2965, 2977, 2980, 2981, 2994, 3016, 3038, 3102, 3108, 3120, 3186, 3205, 3206, 3253, 3284, 3300, 3306, 3313, 3321, 3381,
    3387, 3406, 3549, 3567, 3629, 3653, 3657, 3683, 3686, 3733, 3768, 3803, 3847, 3849, 4141, 4158, 4174, 4218, 4284, 4285, 4348, 4355,
    4380, 4396, 4416, 4427, 4452, 4504, 4525, 4550, 4629, 4634, 4670, 4698, 4704, 4741, 4787, 4790, 4817, 4853, 4864, 4891, 4920, 4938,
    4960, 4967, 5002, 5010, 5013, 5047, 5099, 5176, 5238, 5269, 5290, 5334, 5365, 5383, 5411, 5418, 5431, 5483, 5488, 5542, 5543, 5555,
    5575, 5581, 5605, 5645, 5751, 5791, 5820, 5827, 5830, 5863, 5895, 5936, 6060, 6099, 6110, 6143, 6194, 6220, 6292, 6298, 6351, 6360,
    6425, 6429, 6438, 6497, 6505, 6510, 6512, 6530, 6577, 6578, 6588, 6589, 6611, 6671, 6679, 6754, 6881, 6922, 6992, 7053, 7077, 7164,
    7166, 7202, 7213, 7232, 7248, 7302, 7323, 7334, 7343, 7355, 7415, 7424, 7437, 7492, 7599, 7640, 7667, 7681, 7706, 7715, 7752, 7772,
    7773, 7820, 7821, 7822, 7839, 7858, 7984, 8010, 8022, 8049, 8087, 8184, 8217, 8264, 8275, 8290, 8306, 8318, 8390, 8394, 8435, 8457,
    8477, 8561, 8573, 8574, 8671, 8686, 8697, 8705, 8876, 8916, 8938, 8973, 9006, 9222, 9234, 9242, 9270, 9299, 9320, 9449, 9450, 9454,
    9471, 9559, 9566, 9569, 9656, 9737, 9908, 9949, 9975, 10098, 10105, 10171, 10179, 10224, 10261, 10264, 10324, 10326, 10361, 10369,
    10455, 10529, 10603, 10621, 10659, 10736, 10745, 10765, 10823, 10864, 10915, 10938, 10949, 10960, 11011, 11060, 11071, 11096, 11206,
    11332, 11339, 11391, 11498, 11598, 11679, 11708, 11712, 11730, 11753, 11754, 11762, 11822, 12093, 12129, 12213, 12378, 12412, 12466,
    12477, 12590, 12603, 12621, 12646, 12711, 12836, 12955, 12987, 13002, 13022, 13052, 13095, 13119, 13174, 13179, 13333, 13402, 13447,
    13712, 13716, 13762, 13885, 13911, 14015, 14052, 14093, 14238, 14434, 14446, 14490, 14652, 14677, 14682, 14694, 14806, 14849, 14864,
    14868, 14923, 15045, 15048, 15109, 15130, 15144, 15340, 15407, 15424, 15552, 15751, 15760, 15808, 15883, 15927, 15941, 15981, 16092,
    16279, 16390, 16509, 16541, 16606, 16731, 16758, 16822, 16828, 16932, 16975, 17022, 17116, 17226, 17263, 17454, 17494, 17697, 17767,
    17873, 17905, 18085, 18087, 18261, 18262, 18284, 18427, 18660, 18802, 19121, 19145, 19192, 19419, 19561, 19614, 19682, 19845, 19906,
    19995, 20014, 20056, 20092, 20240, 20418, 20436, 20530, 20546, 20669, 20804, 20936, 21574, 21721, 21873, 22001, 22109, 22121, 22197,
    22217, 22599, 22614, 22679, 22772, 23031, 23310, 23457, 23682, 23741, 23762, 23931, 23983, 24107, 24183, 24230, 24308, 24394, 24427,
    24976, 25071, 25890, 25922, 26496, 26555, 26653, 26723, 26731, 26865, 27152, 27255, 27263, 27324, 27531, 28083, 28084, 28180, 28610,
    28749, 28839, 29007, 29126, 29724, 29727, 29792, 30537, 30765, 30961, 31050, 31200, 31487, 32027, 32074, 32646, 33332, 33580, 33700,
    33862, 33876, 34509, 34584, 34766, 35186, 36002, 36358, 36462, 36551, 36658, 36739, 36756, 37598, 37903, 38394, 38474, 38553, 38773,
    39773, 40533, 40814, 41067, 41250, 43395, 43455, 43493, 44402, 45194, 45328, 45366, 45524, 46105, 46521, 46621, 47913, 47922, 48099,
    48716, 49161, 49450, 49604, 49715, 50038, 50322, 50648, 51408, 52318, 52359, 53544, 54361, 54433, 54642, 54733, 57386, 57410, 57991,
    58924, 59948, 61170, 62250, 62497, 62686, 62708, 63463, 63857, 64228, 64748, 66194, 66645, 69097, 71888, 72444, 75317, 76944, 77322,
    78496, 79054, 79752, 80230, 80310, 80702, 80766, 81122, 81639, 82160, 83283, 84692, 87192, 87276, 87723, 88194, 89857, 90015, 90937,
    90983, 91942, 93341, 93695, 93743, 94035, 96723, 97404, 99400, 101151, 101850, 101909, 102728, 102965, 103046, 103453, 103598, 103652,
    103659, 104473, 104749, 105495, 105998, 106027, 106245, 106470, 106953, 107873, 108561, 108841, 109026, 109245, 109432, 110073, 110671,
    110721, 112610, 113143, 113418, 113558, 113998, 114467, 114754, 120324, 120550, 126178, 130956, 131202, 133714, 136662, 149731, 150783,
    152976, 153370, 172414, 174846, 178028, 179784, 181380, 196432, 200019, 200042, 200054, 200125, 200177, 200186, 200212, 200281, 200351,
    200434, 200540, 200572, 200576, 200596, 200604, 200649, 200710, 200739, 200838, 200881, 200891, 200912, 200935, 201008, 201051, 201142,
    201257, 201283, 201286, 201358, 201369, 201410, 201468, 201546, 201552, 201571, 201591, 201695, 201806, 201921, 202218, 202243, 202364,
    202382, 202419, 202528, 202552, 202671, 202679, 202739, 202859, 202911, 202913, 202926, 203339, 203532, 203618, 203663, 203691, 203789,
    203821, 203885, 203886, 203937, 203945, 203964, 203976, 204032, 204085, 204235, 204267, 204277, 204286, 204410, 204660, 204674, 204689,
    204780, 204821, 204829, 204881, 204999, 205089, 205106, 205135, 205665, 205873, 206082, 206108, 206127, 206135, 206342, 206410, 206455,
    206461, 206704, 206760, 206831, 206875, 206923, 207024, 207035, 207207, 207333, 207541, 207885, 207995, 208062, 208182, 208257, 208321,
    208370, 208476, 208477, 208574, 208588, 208668, 208699, 208734, 208755, 208857, 208894, 208984, 208995, 209229, 209283, 209285, 209287,
    209291, 209476, 209494, 209524, 209539, 209611, 209625, 209785, 209811, 209912, 210125, 210128, 210185, 210437, 210480, 210503, 210584,
    210632, 210755, 210778, 210823, 210865, 210883, 210895, 211075, 211177, 211387, 211405, 211470, 211535, 211569, 211737, 212001, 212104,
    212138, 212150, 212168, 212196, 212200, 212233, 212287, 212407, 212552, 212553, 212784, 213140, 213357, 213415, 213421, 213839, 213871,
    214038, 214047, 214238, 214894, 215048, 215100, 215400, 215406, 215666, 215714, 215804, 215965, 216044, 216154, 216365, 216688, 217236,
    217253, 217377, 217477, 217546, 217576, 218061, 218151, 218629, 218778, 219304, 219358, 219566, 219632, 219760, 220131, 220420, 220565,
    220573, 220684, 221217, 221893, 222063, 222156, 222392, 223055, 223374, 223797, 223956, 224308, 224755, 224793, 224796, 225383, 225388,
    225416, 225670, 225782, 226340, 226396, 226957, 228296, 228910, 229180, 229979, 229982, 230530, 232347, 233846, 234672, 235424, 236726,
    238054, 238436, 238550, 239631, 239953, 240780, 242314, 242463, 242664, 243922, 244125, 244572, 245279, 245351, 245940, 246054, 246534,
    247109, 247729, 250228, 251712, 252844, 253566, 253702, 254786, 256013, 256609, 260528, 261361, 261925, 263087, 265059, 266707, 270732,
    270934, 271953, 276671, 283311, 283641, 284838, 285946, 287635, 287853, 301580, 302539, 309335, 311544, 317566, 330898, 338357, 338407,
    339394, 341688, 343710, 355845, 359427, 359726, 362999, 392906, 400110, 400145, 400147, 400168, 400189, 400307, 400333, 400363, 400399,
    400400, 400408, 400467, 400479, 400620, 400695, 400727, 400833, 400841, 400937, 401036, 401082, 401292, 401316, 401361, 401443, 401578,
    401630, 401658, 401665, 401724, 401804, 401830, 401847, 401851, 401888, 401904, 401996, 402013, 402044, 402143, 402151, 402152, 402193,
    402248, 402269, 402297, 402305, 402317, 402350, 402480, 402497, 402511, 402570, 402574, 402647, 402709, 402765, 402820, 402873, 402887,
    402910, 402982, 403158, 403159, 403228, 403241, 403245, 403297, 403324, 403461, 403593, 403712, 403775, 403808, 403859, 403882, 404018,
    404075, 404081, 404097, 404145, 404163, 404185, 404204, 404214, 404342, 404430, 404493, 404551, 404570, 404598, 404600, 404604, 404671,
    404738, 404792, 404968, 405063, 405206, 405210, 405526, 405560, 405899, 405938, 406090, 406203, 406301, 406324, 406340, 406656, 406701,
    406843, 407221, 407276, 407328, 407421, 407467, 407686, 407831, 407914, 407964, 408099, 408159, 408205, 408240, 408400, 409334, 409439,
    409578, 409697, 409835, 409862, 410093, 410119, 410172, 410191, 410215, 410313, 410334, 410422, 410590, 410666, 410717, 411057, 411131,
    411157, 411310, 411570, 411772, 412282, 412300, 412414, 412421, 412438, 412483, 412505, 412545, 412782, 412869, 412878, 412936, 413102,
    413469, 413868, 414145, 414184, 414195, 414368, 414392, 414487, 414562, 414595, 414692, 414758, 415153, 415293, 415822, 415835, 416487,
    416846, 417367, 417369, 417813, 417829, 418478, 418545, 418853, 419029, 419405, 419821, 420442, 423297, 424640, 424709, 426236, 426913,
    427994, 430271, 431414, 431496, 431825, 433462, 433672, 434658, 435491, 436281, 436705, 436878, 436900, 437639, 438781, 439478, 440388,
    440586, 440916, 442297, 442581, 443570, 444851, 447042, 447648, 448147, 450726, 460193, 464091, 465841, 473159, 483496, 483724, 487527,
    510214, 513064, 516353, 565486, 600022, 600049, 600096, 600166, 600280, 600285, 600294, 600379, 600442, 600447, 600460, 600499, 600659,
    600734, 600744, 600799, 600842, 600900, 600981, 601078, 601172, 601273, 601275, 601421, 601487, 601558, 601639, 601679, 601724, 601838,
    601862, 601893, 601976, 602023, 602089, 602105, 602116, 602178, 602316, 602675, 602834, 602965, 603012, 603049, 603050, 603076, 603170,
    603200, 603260, 603297, 603307, 603520, 603661, 603744, 603774, 603843, 604327, 604504, 604507, 604540, 604569, 604734, 604997, 605039,
    605045, 605049, 605109, 605146, 605383, 605462, 605475, 605529, 605545, 606097, 606263, 606316, 606347, 606408, 606521, 606855, 607320,
    607438, 607544, 607812, 608250, 608354, 608497, 609330, 609362, 609365, 609379, 609390, 610155, 610197, 610322, 610511, 610737, 610834,
    610899, 610926, 610983, 611022, 611203, 611923, 613081, 613164, 613357, 614601, 614754, 614965, 614972, 615658, 615698, 616065, 616163,
    616217, 616271, 616491, 616549, 616821, 617119, 618503, 619074, 619129, 619863, 620080, 620978, 622953, 623327, 624979, 625684, 628801,
    628893, 629701, 633375, 635869, 637564, 640520, 642259, 644353, 646936, 648002, 660245, 662017, 665138, 711674, 743532, 748722, 767978,
    791095,
}
# fmt: on

Cell = tuple[bool, int, int]


def cell_of(identity: Identity) -> Cell:
    return identity.man, int(np.digitize(identity.age, (18, 32, 46, 60))), int(np.digitize(identity.tone, (10, 28, 41)))


def is_short(cell: Cell) -> bool:
    """Whether a search over all finds too few of these: the pale and the young, whom there are most photos of, and old women."""
    man, age, tone = cell
    return tone >= 2 or (age <= 1 and tone >= 1) or (not man and age >= 3)


def stage_of() -> IdentityStage:
    """Lets seeds pass that resemble no reference."""
    cv2.setNumThreads(1)
    model, calibration = load_model(), Calibration()
    n = len(model.references["sface"])
    ids = np.array([f"reference:{i}" for i in range(n)], "S")
    known = KnownFaces(ids=ids, vectors={name: model.references[name] for name in EMBEDDERS}, digest="", generation=0)
    thresholds = {name: calibration.strict_threshold(name) for name in EMBEDDERS}
    check = OutputCheck(load_pack(FindConfig(), tuple(EMBEDDERS)), Guard(known, thresholds, calibration))
    return IdentityStage(check, MorphSwapper(model))


def passing(stage: IdentityStage, seeds: Sequence[int]) -> list[tuple[int, np.ndarray]]:
    """Those of some seeds that pass, with their embeddings."""
    rows = stage(pa.table({"seed": pa.array(seeds, pa.int64())})).select(["seed", "embedding_sface"]).to_pylist()
    return [(row["seed"], np.array(row["embedding_sface"], np.float32)) for row in rows]


def admitted(start: int, seconds: float, wanted: Callable[[Cell], bool]) -> Iterator[tuple[Cell, int, np.ndarray]]:
    """Seeds start, start + PROCESSES, … that pass, with their embeddings; cells that are not wanted, full or hopeless are passed over."""
    model, stage = load_model(), stage_of()
    until, seed = time.monotonic() + seconds, start
    passed: Counter[Cell] = Counter()
    tried: Counter[Cell] = Counter()
    while time.monotonic() < until:
        batch: list[tuple[Cell, int]] = []
        while len(batch) < BATCH:
            cell = cell_of(sample(model, seed))
            if (
                wanted(cell)
                and passed[cell] < PER_CELL / PROCESSES
                and tried[cell] <= 2 * min((tried[c] for c in tried), default=0) + TRIES_PER_CELL / 8
            ):
                tried[cell] += 1
                batch.append((cell, seed))
            seed += PROCESSES
            if seed - start > 200_000:
                return
        cells = {s: cell for cell, s in batch}
        for found, vector in passing(stage, [s for _, s in batch]):
            passed[cells[found]] += 1
            yield cells[found], found, vector


def everybody(_: Cell) -> bool:
    return True


def collect(start: int, seconds: float, wanted: Callable[[Cell], bool]) -> list[tuple[Cell, int, np.ndarray]]:
    return list(admitted(start, seconds, wanted))


def main(minutes: float, on: bool) -> None:
    model, found = load_model(), list[tuple[Cell, int, np.ndarray]]()
    if on:
        found = [
            (cell_of(sample(model, seed)), seed, vector) for seed, vector in passing(stage_of(), np.load(OUT, allow_pickle=False).tolist())
        ]
    with get_context("spawn").Pool(PROCESSES) as pool:
        parts = pool.starmap(collect, [((ON if on else 0) + k, minutes * 60, is_short if on else everybody) for k in range(PROCESSES)])
    save(found + sorted(itertools.chain.from_iterable(parts), key=lambda one: one[1]))


def save(found: Sequence[tuple[Cell, int, np.ndarray]]) -> None:
    """Those of the found that are not struck, and of them that look alike the first."""
    cells: dict[Cell, list[int]] = {}
    vectors = np.zeros((0, 128), np.float32)
    for cell, seed, vector in found:
        if seed not in STRUCK and (len(vectors) == 0 or float((vectors @ vector).max()) < NEAREST_FAKES):
            cells.setdefault(cell, []).append(seed)
            vectors = np.vstack([vectors, vector])
    # one of each cell in turn, so that any beginning of the list is balanced
    rounds = max(len(seeds) for seeds in cells.values())
    order = [seeds[k] for k in range(rounds) for _, seeds in sorted(cells.items()) if k < len(seeds)]
    np.save(OUT, np.array(order, np.int64))
    for cell, seeds in sorted(cells.items()):
        print(f"{'man' if cell[0] else 'woman'}, age band {cell[1]}, tone band {cell[2]}: {len(seeds)}")
    print(f"{OUT}: {len(order)} seeds")


if __name__ == "__main__":
    rest = [word for word in sys.argv[1:] if word != "--on"]
    main(float(rest[0]) if rest else 20, "--on" in sys.argv)
