from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="paddle-srgnn",
    version="0.1.0",
    description="SR-GNN for PaddlePaddle: session-based recommendation with graph neural networks",
    long_description=(Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["paddle_srgnn", "paddle_srgnn.*"]),
    package_data={"paddle_srgnn": ["py.typed", "recipes/*.yaml", "report/*.yaml", "report/*.html"]},
    entry_points={"console_scripts": ["srgnn = paddle_srgnn.cli:main"]},
    install_requires=[
        "numpy",
        "pandas",
        "scipy",
        "scikit-learn",
        "threadpoolctl",
        "safetensors",
        "PyYAML",
        "Jinja2",
        "tqdm",
        "matplotlib",
    ],
    extras_require={
        # Not in the base: it would overwrite a GPU user's own paddlepaddle-gpu.
        "cpu": ["paddlepaddle>=3.0,<4"],
        "ann": ["faiss-cpu"],
        "onnx": ["paddle2onnx>=2.1,<3", "onnx", "onnxruntime"],
        "test": ["pytest", "hypothesis", "ruff"],
    },
)
