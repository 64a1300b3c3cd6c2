"""What a saved generation config needs: the header that names components, distributions and versions.

"genmode": {
    "contract": 1,
    "needs": {"xtc": {"kind": "processors", "distribution": "genmode", "version": "0.1.0"}},
    "watermark": {"scheme": ...}    # if the config has one: transformers could not read the file with it beside its own keys
}
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from ..contract import CONTRACT_VERSION
from ..contract.component import shown
from ..contract.kinds import Kind
from ..errors import ContractVersionError, ParameterError, UnknownComponentError
from .call_keys import HEADER
from .identity import REGISTERED
from .registry import registry
from .resolution import ComponentInfo


def header(infos: Iterable[ComponentInfo]) -> dict[str, Any]:
    """What to save under `call_keys.HEADER` for these components. A name of two kinds is written `kind:name`."""
    infos = list(infos)
    names = [info.name for info in infos]
    needs = {
        info.name if names.count(info.name) == 1 else f"{info.kind}:{info.name}": {
            "kind": info.kind,
            "distribution": info.distribution,
            "version": info.version,
        }
        for info in infos
    }
    return {"contract": CONTRACT_VERSION, "needs": needs}


WATERMARK = "watermark"


def saved_watermark(saved: Any) -> dict[str, Any] | None:
    """The watermark that a saved file has under `call_keys.HEADER`, whose value this is; None if there is none."""
    found = saved.get(WATERMARK) if isinstance(saved, dict) else None
    return found if isinstance(found, dict) else None


def check_needs(saved: Any) -> None:
    """Refuse a saved config whose components are not here.

    Args:
        saved: what a saved file has under `genmode`, or None.

    Raises:
        UnknownComponentError: a component is not installed; says what to install.
        ContractVersionError: the file was saved by a genmode with a newer contract.
        ParameterError: the header is malformed.
    """
    if saved is None:
        return
    try:
        contract, needs = int(saved["contract"]), [(str(k), dict(v)) for k, v in saved["needs"].items()]
        wanted = [(str(n["kind"]), k, str(n["distribution"]), str(n["version"])) for k, n in needs]
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ParameterError(
            f"the key 'genmode' of a generation config is malformed: {shown(HEADER, saved)!r}. It has to read "
            "{'contract': 1, 'needs': {NAME: {'kind': ..., 'distribution': ..., 'version': ...}}}"
        ) from error
    if contract > CONTRACT_VERSION:
        raise ContractVersionError(
            f"this generation config was saved under contract {contract}, and this genmode offers contract "
            f"{CONTRACT_VERSION}: pip install --upgrade genmode"
        )
    for kind, label, distribution, version in wanted:
        name = label.removeprefix(f"{kind}:")
        noun = next((one.noun for one in Kind if one == kind), kind)
        try:
            info = registry().info(kind, name)
        except UnknownComponentError as error:
            way_out = f"pip install {distribution}"
            if distribution == REGISTERED:
                way_out = "the program that saved it had registered it; do so before loading, with genmode.register"
            raise UnknownComponentError(
                f"this generation config needs {noun} {name!r} of {distribution} {version}, "
                f"which is not installed: {way_out}"
            ) from error
        if info.distribution != distribution:
            warnings.warn(
                f"this generation config was saved with {noun} {name!r} of {distribution} {version}; "
                f"here {info.origin} provides it, and may decode differently",
                UserWarning,
                stacklevel=4,
            )
