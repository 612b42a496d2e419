"""Attacks: each is a callable `attack(model, images, targets) -> images`, in units of the [0, 1] image range."""

from purifier.attacks.apgd import APGD
from purifier.attacks.autoattack import AutoAttack, Strongest
from purifier.attacks.base import Attack
from purifier.attacks.bim import BIM
from purifier.attacks.boundary import Boundary
from purifier.attacks.cw import CW
from purifier.attacks.deepfool import DeepFool
from purifier.attacks.detection import DetectionAttack, DetectionLoss
from purifier.attacks.difgsm import DIFGSM
from purifier.attacks.ensemble import Ensemble
from purifier.attacks.eot import EOT
from purifier.attacks.fgsm import FGSM
from purifier.attacks.fmn import FMN
from purifier.attacks.frequency import LowFrequencyPGD
from purifier.attacks.hopskipjump import HopSkipJump
from purifier.attacks.mifgsm import MIFGSM
from purifier.attacks.nifgsm import NIFGSM
from purifier.attacks.patch import Patch
from purifier.attacks.pgd import PGD
from purifier.attacks.rfgsm import RFGSM
from purifier.attacks.segmentation import SegmentationAttack, SegmentationLoss, logits_of
from purifier.attacks.spatial import Spatial
from purifier.attacks.square import Square
from purifier.attacks.ssp import SSP
from purifier.attacks.threats import BPDA, Aware, Blind, ThreatModel, Transfer, bare_model, whole_model, worst_case
from purifier.attacks.tifgsm import DITIFGSM, TIFGSM
from purifier.attacks.universal import Universal
from purifier.attacks.vmifgsm import VMIFGSM, VNIFGSM
from purifier.models.features import features_at

__all__ = [
    "APGD",
    "BIM",
    "BPDA",
    "CW",
    "DIFGSM",
    "DITIFGSM",
    "EOT",
    "FGSM",
    "FMN",
    "MIFGSM",
    "NIFGSM",
    "PGD",
    "RFGSM",
    "SSP",
    "TIFGSM",
    "VMIFGSM",
    "VNIFGSM",
    "Attack",
    "AutoAttack",
    "Aware",
    "Blind",
    "Boundary",
    "DeepFool",
    "DetectionAttack",
    "DetectionLoss",
    "Ensemble",
    "HopSkipJump",
    "LowFrequencyPGD",
    "Patch",
    "SegmentationAttack",
    "SegmentationLoss",
    "Spatial",
    "Square",
    "Strongest",
    "ThreatModel",
    "Transfer",
    "Universal",
    "bare_model",
    "features_at",
    "logits_of",
    "whole_model",
    "worst_case",
]
