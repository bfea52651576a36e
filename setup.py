"""Package metadata; the build backend and the tools' settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
PACKAGE = "fairseq_neupronet"


def read_version() -> str:
    """The version, read as text: importing the package would need torch in the build environment."""
    text = (ROOT / PACKAGE / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE).group(1)


def config_packages() -> dict[str, str]:
    """Maps ``fairseq_neupronet.configs[.…]`` to the top-level ``configs/`` folders, which an installation carries."""
    folders = sorted({path.parent.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.yaml")})
    with_parents = sorted({parent for folder in folders for parent in (folder, *folder.parents)} - {Path(".")})
    return {".".join((PACKAGE, *folder.parts)): folder.as_posix() for folder in with_parents}


CONFIGS = config_packages()
README = ROOT / "README.md"

setup(
    name="fairseq-neupronet",
    version=read_version(),
    description="NeuProNet, neural profiling networks for sound classification, as a fairseq plugin",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    author="fairseq-neupronet contributors",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.13",
    packages=[*find_packages(include=[PACKAGE, f"{PACKAGE}.*"]), *CONFIGS],
    package_dir=CONFIGS,
    package_data={name: ["*.yaml"] for name in CONFIGS},
    # fairseq is the host that loads this plugin and is not listed: it goes by several distribution names (fairseq,
    # fairseq-fixed, …), and asking for one would overwrite another's files or start a build of minutes. The extra
    # names the tested one. The tested version of everything is in scripts/constraints.txt.
    install_requires=[
        "efficientnet_pytorch>=0.7.1",
        "filelock>=4.2",
        "lazy_loader>=0.4",
        "numpy>=1.24",
        "pyyaml>=6.0",
        "scikit-learn>=1.3",
        "soundfile>=0.12.1",
        "torch>=2.6",
        "torchaudio>=2.6",
        "torchvision>=0.21",
        "tqdm>=4.64",
    ],
    extras_require={
        "export": ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.5"],
        "fairseq": ["fairseq-fixed>=0.12.3.1"],
        "report": ["matplotlib>=3.8"],
        "serve": ["gradio>=6.31,<7", "matplotlib>=3.8"],
        "show": ["matplotlib>=3.8"],
        "tensorboard": ["matplotlib>=3.8", "tensorboard>=2.16"],
        "test": [
            "atheris>=2.3; sys_platform == 'linux'",
            "gradio>=6.31,<7",
            "hypothesis>=6.100",
            "librosa>=0.10.2",
            "matplotlib>=3.8",
            "onnx>=1.17",
            "onnxruntime>=1.20",
            "onnxscript>=0.5",
            "pandas>=2.0",
            "playwright>=1.50",
            "pytest>=8.0",
            "pytest-xdist>=3.5",
            "ruff>=0.9",
            "tensorboard>=2.16",
        ],
    },
    entry_points={"console_scripts": ["neupronet = fairseq_neupronet.cli:main"]},
)
