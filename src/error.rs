//! The one error type of this crate: variants by what the reader can do about it.

use std::path::{Path, PathBuf};

/// Result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, with what was wrong, where, and what to do in the message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Tensor shapes do not fit together; the message names the op, the tensors and both shapes.
    #[error("shape mismatch in {op}: {message}")]
    Shape {
        /// The op or layer that refused its inputs.
        op: String,
        /// Names and shapes of the tensors involved.
        message: String,
    },
    /// A graph that means nothing: a name that is taken or not there, a number out of its range, a gradient that no op has.
    #[error("{op}: {message}")]
    Graph {
        /// The op, layer or function that refused it.
        op: String,
        /// What is wrong, and what to do.
        message: String,
    },
    /// A size exceeds what the adapter offers (binding, buffer or memory limits).
    #[error("limit exceeded: {0}")]
    Limit(String),
    /// No adapter could be used.
    #[error("{0}")]
    Adapter(String),
    /// The GPU went away (driver reset, unplugged, watchdog).
    #[error("the GPU was lost: {0}")]
    DeviceLost(String),
    /// The GPU ran out of memory.
    #[error("out of GPU memory: {0}")]
    OutOfMemory(String),
    /// A shader was refused by naga or by the driver: always a bug of this crate.
    #[error("shader {name}: {message}")]
    Shader {
        /// Shader file stem, or the label of a generated one.
        name: String,
        /// What naga or wgpu said.
        message: String,
    },
    /// A data set or image is not what it should be.
    #[error("{}: {message}", path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the byte where that is known.
        message: String,
    },
    /// A checkpoint does not fit the model or is damaged.
    #[error("checkpoint {}: {message}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// An option or configuration value is wrong.
    #[error("{0}")]
    Config(String),
    /// Training cannot go on (the loss is not a number).
    #[error("{0}")]
    Diverged(String),
    /// The other processes of the run do not answer, or cannot be reached.
    #[error("{0}")]
    Ranks(String),
    /// Something that cannot happen has happened: always a bug of this crate.
    #[error("{0}. This is a bug of decorr: please report it with the command and this line")]
    Bug(String),
    /// The operating system refused to read or write a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl Error {
    /// A [`Error::Shape`] of `op`.
    pub fn shape(op: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Shape {
            op: op.into(),
            message: message.into(),
        }
    }

    /// A [`Error::Graph`] of `op`.
    pub fn graph(op: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Graph {
            op: op.into(),
            message: message.into(),
        }
    }

    /// A [`Error::Bug`].
    pub fn bug(what: impl Into<String>) -> Self {
        Self::Bug(what.into())
    }

    /// A validation error of wgpu as what a shader's driver said; other errors as they are.
    pub(crate) fn of_shader(self, name: &str) -> Self {
        match self {
            Self::Bug(message) => Self::Shader {
                name: name.to_string(),
                message,
            },
            other => other,
        }
    }

    /// A [`Error::Io`] at `path`; use as `.map_err(|e| Error::io(path, e))`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io {
            path: path.as_ref().to_path_buf(),
            source,
        }
    }

    /// A [`Error::Data`] at `path`.
    pub fn data(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self::Data {
            path: path.as_ref().to_path_buf(),
            message: message.into(),
        }
    }

    /// A [`Error::Checkpoint`] at `path`.
    pub fn checkpoint(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self::Checkpoint {
            path: path.as_ref().to_path_buf(),
            message: message.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_says_what_it_is_of() {
        let refused = || std::io::Error::other("refused");
        for (error, wanted) in [
            (
                Error::shape("conv1", "3 and 4"),
                "shape mismatch in conv1: 3 and 4",
            ),
            (Error::graph("conv1", "no such name"), "conv1: no such name"),
            (Error::Limit("4 GiB".into()), "limit exceeded: 4 GiB"),
            (Error::DeviceLost("reset".into()), "the GPU was lost: reset"),
            (
                Error::OutOfMemory("64 MiB".into()),
                "out of GPU memory: 64 MiB",
            ),
            (Error::bug("x").of_shader("pool"), "shader pool: x"),
            (
                Error::Limit("x".into()).of_shader("pool"),
                "limit exceeded: x",
            ),
            (Error::data("a.png", "is empty"), "a.png: is empty"),
            (
                Error::checkpoint("a.st", "is damaged"),
                "checkpoint a.st: is damaged",
            ),
            (Error::io("a.st", refused()), "a.st: refused"),
            (
                Error::bug("it is odd"),
                "it is odd. This is a bug of decorr: please report it with the command and this line",
            ),
        ] {
            assert_eq!(error.to_string(), wanted);
        }
    }
}
