"""Attacks: each is a callable `attack(model, images, targets) -> images`, in units of the [0, 1] image range."""

from purifier.attacks.apgd import APGD
from purifier.attacks.autoattack import AutoAttack, Strongest
from purifier.attacks.base import Attack
from purifier.attacks.bim import BIM
from purifier.attacks.cw import CW
from purifier.attacks.deepfool import DeepFool
from purifier.attacks.detection import DetectionAttack, DetectionLoss
from purifier.attacks.difgsm import DIFGSM
from purifier.attacks.eot import EOT
from purifier.attacks.fgsm import FGSM
from purifier.attacks.mifgsm import MIFGSM
from purifier.attacks.pgd import PGD
from purifier.attacks.rfgsm import RFGSM
from purifier.attacks.segmentation import SegmentationAttack, SegmentationLoss, logits_of
from purifier.attacks.square import Square
from purifier.attacks.ssp import SSP
from purifier.attacks.threats import BPDA, Aware, Blind, ThreatModel, Transfer, bare_model, whole_model, worst_case
from purifier.attacks.tifgsm import DITIFGSM, TIFGSM
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
    "MIFGSM",
    "PGD",
    "RFGSM",
    "SSP",
    "TIFGSM",
    "Attack",
    "AutoAttack",
    "Aware",
    "Blind",
    "DeepFool",
    "DetectionAttack",
    "DetectionLoss",
    "SegmentationAttack",
    "SegmentationLoss",
    "Square",
    "Strongest",
    "ThreatModel",
    "Transfer",
    "bare_model",
    "features_at",
    "logits_of",
    "whole_model",
    "worst_case",
]
