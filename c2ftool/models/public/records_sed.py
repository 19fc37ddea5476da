"""Published checkpoints of the five transformers of Schmid et al. (ICASSP 2025): theirs, and those they started from.

Addresses: README and config.py of github.com/fschmid56/PretrainedSED, and the READMEs of github.com/microsoft/unilm
(beats), Audio-WestlakeU/audiossl and nttcslab/m2d. Microsoft's files are behind pages of OneDrive, which only a browser
can use; some have copies on Hugging Face with the same hash.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from c2ftool.models.public.record import PublicWeights, Source, by_hand, drive, hugging_face, release
from c2ftool.spec import frontends
from c2ftool.spec.frontends import FrontendDefaults

# --- BEATs, as Microsoft published it ---------------------------------------------------------------------------------

_MICROSOFT = "https://github.com/microsoft/unilm/tree/master/beats"
_COPIES = {
    "BEATs_iter3": "lpepino/beats_ckpts",
    "BEATs_iter3_finetuned_on_AS2M_cpt1": "lpepino/beats_ckpts",
    "BEATs_iter3_plus_AS2M": "lpepino/beats_ckpts",
    "BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2": "WeiChihChen/BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2",
}
_OWN_ORDER = "classes in the order of the file's label_dict"


def _beats(called: str, page: str, sha256: str, step: str = "") -> PublicWeights:
    """called: without its suffix; page: the rest of its address on OneDrive; step: what it is of Schmid et al."""
    name, tuned = called.lower(), "finetuned" in called
    if called in _COPIES:
        copy = hugging_face(_COPIES[called], f"{called}.pt", f"{name}.pt", sha256)
        source = replace(copy, page=_MICROSOFT)
    else:
        source = by_hand(f"https://1drv.ms/u/s!AqeByhGUtINrgc{page}", f"{called}.pt", f"{name}.pt", sha256)
    number, _, labels = called.removeprefix("BEATs_iter").partition("_finetuned")[0].partition("_plus_")
    about = f"iteration {number}" + (f"+, by a tokenizer that learnt from the labels of {labels}" if labels else "")
    return PublicWeights(
        name=name,
        family="beats",
        backbone="beats_base",
        task="AS-2M" if tuned else "pretrained",
        about=about + (f"; fine-tuned on AudioSet-2M; {_OWN_ORDER}" if tuned else step),
        sources=(source,),
        classes=527 if tuned else 0,
        frontend=frontends.BEATS,
    )


BEATS = (
    _beats(
        "BEATs_iter1", "pmY7IHhgc9q0pT7Q?e=uQuisJ", "b5f4cc10bcbff63a437c695f33389e6411513b3f7d5cdae8fb62b5005f4a1fcd"
    ),
    _beats(
        "BEATs_iter1_finetuned_on_AS2M_cpt1",
        "puRfRZmco2XulmFw?e=f2INHa",
        "e0e739e3670bfbb93c51adefb1d02981621397addc979d392aefd3dc53c22cab",
    ),
    _beats(
        "BEATs_iter1_finetuned_on_AS2M_cpt2",
        "pyMlTmnRh0Wp_Qgg?e=sgzv8H",
        "2f3a7b65ab232c4f75570d4d17e21e5ebc34b3c40fe1a074f27d199e81354960",
    ),
    _beats(
        "BEATs_iter2", "pwwEGgUyiI-jQyQw?e=1rP1RI", "81a23e00aa4878d7e8627ded87ea697fb347c8ceffed21223e0398ed0fa34ad8"
    ),
    _beats(
        "BEATs_iter2_finetuned_on_AS2M_cpt1",
        "p4l547zKa7xPqy8w?e=rsLdPr",
        "3a120810c0f6dbfd50a7f48dc03ed077971a50cb2dbb7999695d5c700d03da45",
    ),
    _beats(
        "BEATs_iter2_finetuned_on_AS2M_cpt2",
        "p5APbt_2bdIQvX0w?e=2cd2ry",
        "08363b9b5eabeb47b0879c84145b27c603e7e50c116a633fa5b98ade119fc354",
    ),
    _beats(
        "BEATs_iter3",
        "pxJUNDxg4eU0r-vA?e=qezPJ5",
        "8d1b234032a9ccff353612dc6c20982346dc2968b205b79d97303eb5e77bfb34",
        "; step 1 of Schmid et al.",
    ),
    _beats(
        "BEATs_iter3_finetuned_on_AS2M_cpt1",
        "plb48ll1zIt82eWQ?e=XyxrX7",
        "379369a41d0b3749f746cdcea8036de506cb3aedecce84de7db0a75fda2a4fe7",
    ),
    _beats(
        "BEATs_iter3_finetuned_on_AS2M_cpt2",
        "ptb4S-CeJnlJGtZA?e=2FyDy3",
        "08374f1cbd49143900b351bc81cd307de386a11f8e609eb3862634e992068b55",
    ),
    _beats(
        "BEATs_iter3_plus_AS20K",
        "pvdNz8-aYim60CIg?e=53V8pg",
        "8008b126bb5e8ab08912c60c58847ed676d32e64a5864c922356b7c2522fb2f8",
    ),
    _beats(
        "BEATs_iter3_plus_AS20K_finetuned_on_AS2M_cpt1",
        "p2YHUCT1uZx2Kysw?e=nvu1Dw",
        "2c366278dcf835e9bdefad4f7147b0edba4b940c59146fd05dc49a401fa82ff8",
    ),
    _beats(
        "BEATs_iter3_plus_AS20K_finetuned_on_AS2M_cpt2",
        "p092af0h7P3kXKFA?e=kUkPhN",
        "6d28b32bfa7bcaaf84ab834186581c2a360c6669e372e808d054cf0ef4d5c2d2",
    ),
    _beats(
        "BEATs_iter3_plus_AS2M",
        "pke6_lRSZEKD5j2Q?e=A3FpOf",
        "d43cbfad4d7b56381c061d7a24774f908d4d94c72961f6eb1d9090ff18cd8d34",
        "; step 2 of Schmid et al.",
    ),
    _beats(
        "BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt1",
        "poZecQbiXeaUjN8A?e=DasbeC",
        "7f9362028ac6e5c049e8dc314d87e90e4f82a15a8e472deb56af55d7f9b34d6a",
    ),
    _beats(
        "BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2",
        "pj8ujXH1YUtxooEg?e=E9Ncea",
        "e5815275a04b6885e7b8af63d120b29bffae2cd2225cf4915e1ec6d819d3022c",
    ),
)

# --- ATST-Frame, M2D and ASiT, as published ---------------------------------------------------------------------------

_ATST_LICENCE = "MIT (licence of the authors' repository, which names its checkpoints)"
ATST = (
    PublicWeights(
        name="atst_base_pretrained",
        family="atst",
        backbone="atst_base",
        task="pretrained",
        about="ATST-Frame base; step 1 of Schmid et al.",
        sources=(
            drive(
                "1bGJSZWlAIIJ6GL5Id5dW0PTB72DL-QDQ",
                "atst_base_pretrained.ckpt",
                "9f812544983add849f45ef03c4ce10184729adee082c0bdd347764f4835bb3da",
            ),
        ),
        licence=_ATST_LICENCE,
        frontend=frontends.ATST,
        stride=(4, 64),
    ),
    PublicWeights(
        name="atst_base_as2m",
        family="atst",
        backbone="atst_base",
        task="AS-2M",
        about="ATST-Frame base, fine-tuned on AudioSet-2M; step 2 of Schmid et al.",
        sources=(drive("1_xb0_n3UNbUG_pH1vLHTviLfsaSfCzxz", "atst_base_as2m.ckpt"),),
        classes=None,
        licence="MIT (stated by the README of Audio-WestlakeU/ATST-SED)",
        frontend=frontends.ATST,
        stride=(4, 64),
    ),
)

_NTT = "NTT's own (LICENSE.pdf of nttcslab/m2d, to be read before use)"


def _m2d(name: str, archive: str, member: str, about: str) -> PublicWeights:
    """archive: without .zip; member: the checkpoint in it."""
    packed = release("nttcslab/m2d", "v0.3.0", f"{archive}.zip", f"{name}.pth")
    return PublicWeights(
        name=name,
        family="m2d",
        backbone="m2d_base",
        task="AS-2M",
        about=about,
        sources=(replace(packed, member=member),),
        classes=527,
        licence=_NTT,
        frontend=frontends.M2D,
    )


M2D = (
    _m2d(
        "m2d_clap_base_as2m",
        "m2d_clap_vit_base-80x1001p16x16-240128_AS-FT_enconly",
        "weights_ep67it3124-0.48558.pth",
        "M2D-CLAP, fine-tuned on AudioSet-2M: 48.5 mAP; steps 1 and 2 of Schmid et al.",
    ),
    _m2d(
        "m2d_as_base_as2m",
        "m2d_as_vit_base-80x1001p16x16-240213_AS-FT_enconly",
        "weights_ep69it3124-0.48494.pth",
        "M2D-AS, fine-tuned on AudioSet-2M: 48.5 mAP",
    ),
    _m2d(
        "m2d_base_as2m",
        "m2d_vit_base-80x1001p16x16-221006-mr7_as_46ab246d",
        "weights_ep69it3124-0.47929.pth",
        "M2D, fine-tuned on AudioSet-2M: 47.9 mAP",
    ),
)

_NO_LICENCE = "none stated (the authors' repository has no licence file)"
ASIT = (
    PublicWeights(
        name="asit_base_pretrained",
        family="asit",
        backbone="asit_base",
        task="pretrained",
        about="ASiT; step 1 of Schmid et al.",
        sources=(drive("11eaOU40jonpYZ3u_XI-XUSSWclv8qeR7", "asit_base_pretrained.pth"),),
        licence=_NO_LICENCE,
        frontend=frontends.ASIT,
    ),
)

# --- Schmid et al. ----------------------------------------------------------------------------------------------------

_MIT = "MIT (licence of the authors' repository"


def _released(called: str, file: str, sha256: str | None = None) -> Source:
    return release("fschmid56/PretrainedSED", "v0.0.1", called, file, sha256)


@dataclass(frozen=True)
class _Transformer:
    """called: in the names of the release's files; start, weak: what steps 1 and 2 are; score: PSDS1 after step 3."""

    family: str
    called: str
    frontend: FrontendDefaults
    stride: tuple[int, int]
    start: str
    weak: str
    score: float
    strong: str | None = None  # hash of the file after step 3
    licence: str = f"{_MIT})"

    def records(self) -> tuple[PublicWeights, ...]:
        return (
            self._record("ssl", "pretrained", f"step 1: {self.start}", 0),
            self._record("weak", "AudioSet weak", f"step 2: {self.weak}", None),
            self._record(
                "strong_1", "AudioSet Strong", f"step 3, the student: PSDS1 {self.score} (mean of 3)", 447, self.strong
            ),
        )

    def _record(
        self, stage: str, task: str, about: str, classes: int | None, sha256: str | None = None
    ) -> PublicWeights:
        name = f"{self.family}_sed_{stage}"
        sources: tuple[Source, ...] = (_released(f"{self.called}_{stage}.pt", f"{name}.pt", sha256),)
        if name == "fpasst_sed_ssl":  # so the code calls it; the README otherwise
            sources += (_released("fpasst_im.pt", "fpasst_sed_ssl_im.pt"),)
        return PublicWeights(
            name=name,
            family=self.family,
            backbone=f"{self.family}_base",
            task=task,
            about=f"Schmid et al., {about}",
            sources=sources,
            classes=classes,
            licence=self.licence,
            frontend=self.frontend,
            stride=self.stride,
        )


_TRANSFORMERS = (
    _Transformer(
        "atst", "ATST-F", frontends.ATST, (4, 64), "ATST-Frame base", "ATST-Frame fine-tuned by its authors", 45.8,
        strong="fbf2577958e3648d55ee8cea7e0e5260c4505fb0c13964e1ec81bc367cee5eda",
    ),
    _Transformer(
        "beats", "BEATs", frontends.BEATS, (16, 16), "BEATs iter3", "BEATs iter3+ (AS2M)", 46.5,
        strong="db13a79ae90a0cfd0f9911a6a1d8cdb89324322bee642dcfe32de022123b8b54",
    ),
    _Transformer(
        "fpasst", "fpasst", frontends.FPASST, (4, 128), "distilled DeiT of ImageNet", "frame-wise PaSST: 48.4 mAP", 45.4
    ),
    _Transformer(
        "m2d", "M2D", frontends.M2D, (16, 16), "M2D-CLAP", "M2D-CLAP fine-tuned by its authors", 46.3,
        licence=f"{_MIT}; trained from weights with NTT's own licence: LICENSE.pdf of nttcslab/m2d)",
    ),
    _Transformer(
        "asit", "ASIT", frontends.ASIT, (16, 16), "ASiT", "ASiT: 49.8 mAP", 46.2,
        licence=f"{_MIT}; trained from weights without a stated licence)",
    ),
)  # fmt: skip

SED = tuple(record for transformer in _TRANSFORMERS for record in transformer.records())
