//! Why a command fails, and its exit code.

use std::error::Error;
use std::fmt::Write as _;
use std::process::ExitCode;

use axum_idem::store::{DecodeError, StoreError};

use crate::sealing::KEYS;

#[derive(Debug)]
pub(crate) enum Failure {
    /// The store failed.
    Store(StoreError),
    /// The arguments or the input are wrong.
    Usage(String),
    /// Nothing was found, or the call had no effect.
    Nothing(String),
    /// Some of the records that were asked for cannot be read.
    Unreadable(String),
    /// The store is not fit. The findings are printed already.
    Unfit,
    /// The operator did not confirm.
    Unconfirmed(String),
    /// The audit log could not be written before a change, so this change was not made.
    Unlogged {
        subject: String,
        error: std::io::Error,
    },
    /// The audit log could not be written after a change. The line with the result is on the standard error.
    Audit(std::io::Error),
    /// The reader of the output has gone, as in `idem list | head`.
    Output(std::io::Error),
}

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => 0,
            Self::Store(StoreError::Undecodable(_)) | Self::Unreadable(_) => 6,
            Self::Store(_) | Self::Unlogged { .. } | Self::Audit(_) | Self::Output(_) => 1,
            Self::Usage(_) => 2,
            Self::Nothing(_) => 3,
            Self::Unfit => 4,
            Self::Unconfirmed(_) => 5,
        })
    }

    pub(crate) fn message(&self) -> Option<String> {
        match self {
            Self::Store(error) => Some(chain(error) + &what_to_do(error)),
            Self::Usage(message)
            | Self::Nothing(message)
            | Self::Unreadable(message)
            | Self::Unconfirmed(message) => Some(message.clone()),
            Self::Unlogged { subject, error } => Some(format!(
                "{subject} was not changed, because the audit log cannot be written: {error}"
            )),
            Self::Audit(error) => Some(format!(
                "the result of the change is not in the audit log; its line is printed above: {error}"
            )),
            Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => None,
            Self::Output(error) => Some(format!("the output cannot be written: {error}")),
            Self::Unfit => None,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Output(error)
    }
}

/// What the operator can do about a seal.
fn what_to_do(error: &StoreError) -> String {
    let StoreError::Undecodable(why) = error else {
        return String::new();
    };
    match why {
        DecodeError::Sealed => format!("; set {KEYS}, or use `--seal-keys-file`"),
        DecodeError::MissingKey(id) => {
            format!("; add key {id} to {KEYS} or to the file of `--seal-keys-file`")
        }
        DecodeError::NotSealed => "; `--read-unsealed` accepts it".to_owned(),
        _ => String::new(),
    }
}

/// An error with its sources, each of them once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            // A string takes everything.
            let _ = write!(text, ": {more}");
        }
        source = error.source();
    }
    text
}
