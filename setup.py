"""Only what setup.cfg cannot say: the extension in C, without which the package works as well, but slower on a CPU."""

import sys
import sysconfig

from setuptools import Extension, setup

# GCC and clang: vectors, and no products joined to sums, so that all processors round alike
FLAGS = ["/std:c11"] if sys.platform == "win32" else ["-O3", "-ffp-contract=off", "-fvisibility=hidden", "-g0"]
# one wheel for all versions of Python from 3.11; the free-threaded ones have no such thing
ONE_FOR_ALL = not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    ext_modules=[
        Extension(
            "anomalib_spd.native._extension",
            [f"anomalib_spd/native/{name}.c" for name in ("module", "patches", "places", "saliency")],
            depends=["anomalib_spd/native/native.h"],
            extra_compile_args=FLAGS,
            define_macros=[("Py_LIMITED_API", "0x030B0000")] if ONE_FOR_ALL else [],
            py_limited_api=ONE_FOR_ALL,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if ONE_FOR_ALL else {},
)
