//! The one error type of the command: a sentence for the user and the exit status that goes with it.

use std::fmt;

/// Bad options or a bad configuration.
pub(crate) const USAGE: u8 = 2;
/// accel itself refuses: `--strict`, no library.
pub(crate) const REFUSED: u8 = 125;
/// The command exists and can't be executed.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// There is no such command.
pub(crate) const NOT_FOUND: u8 = 127;

/// Why accel stops here: what, which value, what next, in one sentence.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The sentence, without `accel: ` in front.
    pub message: String,
    /// The exit status.
    pub status: u8,
}

impl Refusal {
    /// A refusal with exit status [`USAGE`].
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), status: USAGE }
    }

    /// A refusal with another exit status.
    pub(crate) fn with(status: u8, message: impl Into<String>) -> Self {
        Self { message: message.into(), status }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "accel: {}", self.message)
    }
}
