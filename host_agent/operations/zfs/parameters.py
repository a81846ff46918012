"""The grammar of names in ZFS, and the parameters of each operation. Values only.

The wrappers hold the same grammar once more; tests compare the two.
"""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from host_agent.operations.catalogue import Parameters

MAX_NAME_LENGTH = 255
MAX_PROPERTIES = 64

# -- grammar ---------------------------------------------------------------------------------------

_COMPONENT = r"[A-Za-z0-9_.:-]+"
_DATASET = re.compile(rf"[A-Za-z][A-Za-z0-9_.:-]*(?:/{_COMPONENT})*(?:@{_COMPONENT})?")
_RESERVED_POOLS = ("mirror", "raidz", "draid", "spare")
_SNAPSHOT_NAME = re.compile(r"[A-Za-z0-9_.:][A-Za-z0-9_.:-]*")
_TAG = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:-]*")
_PROPERTY = re.compile(r"[a-z0-9_:.][A-Za-z0-9_:.-]*(?:@[A-Za-z0-9_:.-]+)?")


def is_dataset(text: str) -> bool:
    """Return whether `text` names a dataset, by OpenZFS's rules and without space and `%`.

    Beyond the alphabet: no component is `.` or `..`, and a pool is neither `log` nor begins with a
    word that `zpool` reads as a kind of device (zpoolconcepts(7), zfsconcepts(7)).
    """
    if len(text) > MAX_NAME_LENGTH or _DATASET.fullmatch(text) is None:
        return False
    parts = re.split("[/@]", text)
    return not {".", ".."} & set(parts) and not (
        parts[0] == "log" or parts[0].startswith(_RESERVED_POOLS)
    )


def is_snapshot_name(text: str) -> bool:
    """Return whether `text` can stand after `@`, and is no option."""
    return _SNAPSHOT_NAME.fullmatch(text) is not None and text not in {".", ".."}


def base_of(dataset: str) -> str:
    """Return the part before `@`: what allow-lists are matched on, and what waits for its turn."""
    return dataset.partition("@")[0]


def _checked(is_valid: Callable[[str], bool], sentence: str) -> AfterValidator:
    def check(text: str) -> str:
        if not is_valid(text):
            raise ValueError(sentence)
        return text

    return AfterValidator(check)


_IS_DATASET = _checked(is_dataset, "must be the name of a dataset, as in tank/media")
_IS_SNAPSHOT = _checked(lambda text: "@" in text, "must be a snapshot, as in tank/media@old")
_IS_NO_SNAPSHOT = _checked(lambda text: "@" not in text, "must be no snapshot: no @")
_IS_SNAPSHOT_NAME = _checked(is_snapshot_name, "must be of letters, digits, _ . : and -")
_IS_TAG = _checked(
    lambda text: _TAG.fullmatch(text) is not None,
    "must be of letters, digits, _ . : and -, and not begin with a dot",
)
_IS_PROPERTY = _checked(
    lambda text: _PROPERTY.fullmatch(text) is not None, "must be the name of a property"
)

Dataset = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME_LENGTH), _IS_DATASET]
AnyDataset = Annotated[Dataset, Field(description="A file system, a volume, or a snapshot.")]
Filesystem = Annotated[Dataset, _IS_NO_SNAPSHOT, Field(description="A file system or a volume.")]
Snapshot = Annotated[Dataset, _IS_SNAPSHOT, Field(description="A snapshot, `DATASET@NAME`.")]
SnapshotName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_NAME_LENGTH),
    _IS_SNAPSHOT_NAME,
    Field(description="What comes after `@`."),
]
Tag = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_NAME_LENGTH),
    _IS_TAG,
    Field(description="The name of the hold."),
]
Property = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME_LENGTH), _IS_PROPERTY]
DatasetType = Literal["filesystem", "snapshot", "volume"]


def _sorted_types(types: list[DatasetType]) -> list[DatasetType]:
    return sorted(set(types))


def _distinct(properties: list[str]) -> list[str]:
    return list(dict.fromkeys(properties))


# -- parameters ------------------------------------------------------------------------------------


class DatasetListParameters(Parameters):
    """`list`: a dataset, all below it, or everything that may be touched."""

    positional: ClassVar[tuple[str, ...]] = ("dataset", "types", "recursive")
    dataset: (
        Annotated[Dataset, Field(description="Where to look; everywhere if left out.")] | None
    ) = None
    types: (
        Annotated[
            list[DatasetType],
            Field(min_length=1, max_length=3),
            AfterValidator(_sorted_types),
            Field(description="What to list; file systems and volumes if left out."),
        ]
        | None
    ) = None
    recursive: Annotated[bool, Field(description="Also all below `dataset`.")] = False


class GetParameters(Parameters):
    """`get`: properties of one dataset."""

    positional: ClassVar[tuple[str, ...]] = ("dataset", "properties")
    dataset: AnyDataset
    properties: Annotated[
        list[Property],
        Field(min_length=1, max_length=MAX_PROPERTIES),
        AfterValidator(_distinct),
        Field(description="Names of properties, or `all`."),
    ]


class DatasetSnapshotParameters(Parameters):
    """`snapshot`: one dataset, or it and all below it at one moment."""

    positional: ClassVar[tuple[str, ...]] = ("dataset", "name", "recursive")
    phrases: ClassVar[Mapping[str, str]] = {"name": "@{}", "recursive": " and all below it"}
    dataset: Filesystem
    name: SnapshotName
    recursive: Annotated[bool, Field(description="Also all datasets below.")] = False

    @model_validator(mode="after")
    def _check_length(self) -> "DatasetSnapshotParameters":
        if len(self.dataset) + 1 + len(self.name) > MAX_NAME_LENGTH:
            message = f"dataset and name together must have at most {MAX_NAME_LENGTH} characters"
            raise ValueError(message)
        return self


class HoldParameters(Parameters):
    """`hold`: one tag on one snapshot."""

    positional: ClassVar[tuple[str, ...]] = ("dataset", "tag")
    phrases: ClassVar[Mapping[str, str]] = {"tag": ", tag {}"}
    dataset: Snapshot
    tag: Tag


class ReleaseParameters(HoldParameters):
    """`release`: one tag off one snapshot."""


class DestroyParameters(Parameters):
    """`destroy`: a dataset without anything below it, a snapshot, or with all below it."""

    positional: ClassVar[tuple[str, ...]] = ("dataset", "recursive", "release")
    phrases: ClassVar[Mapping[str, str]] = {
        "recursive": " and all below it",
        "release": " by releasing {}",
    }
    dataset: AnyDataset
    recursive: Annotated[
        bool,
        Field(description="Also all datasets and snapshots below, or all snapshots of that name."),
    ] = False
    release: (
        Annotated[
            Tag,
            Field(
                description="The last hold of a snapshot that is marked for deferred destroy: "
                "taking it off is what destroys it."
            ),
        ]
        | None
    ) = None

    @model_validator(mode="after")
    def _check_release(self) -> "DestroyParameters":
        if self.release is not None and ("@" not in self.dataset or self.recursive):
            message = "`release` is for one snapshot, without `recursive`"
            raise ValueError(message)
        return self


class RollbackParameters(Parameters):
    """`rollback`: to the newest snapshot."""

    positional: ClassVar[tuple[str, ...]] = ("dataset",)
    dataset: Snapshot


NamedParameters = (
    GetParameters
    | DatasetSnapshotParameters
    | HoldParameters
    | DestroyParameters
    | RollbackParameters
)
"""Parameters that name a dataset."""
