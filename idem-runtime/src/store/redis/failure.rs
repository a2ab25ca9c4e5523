//! Why a command got no usable reply, and the error texts.

use std::sync::Arc;
use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::store::{DecodeError, StoreError};

/// The commands that the scripts call and that send scripts.
const NEEDED: &str = "EVALSHA, EVAL, GET, SET, PTTL, PEXPIRE, DEL, TIME, INFO, WAIT for replicas, and ASKING on a cluster";

/// Why a command got no reply. Cloned for every transition that waited for the same connection.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The server refused the command, or the connection broke.
    Redis(RedisError),
    /// There is no connection to the server.
    Connect(Arc<ConnectError>),
    /// The server at this address is a replica.
    Replica(Arc<str>),
    /// The server must not be used with its current settings.
    Unfit(Arc<str>),
    /// No server knows which server is the primary.
    Unserved(Arc<str>),
    /// The deadline passed.
    TimedOut,
}

/// Why there is no connection. Contains the server's address, but never its credentials.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("redis at {0} refuses connections; is it running?")]
    Refused(Arc<str>),
    #[error("redis at {0} refused the user name or the password: {1}")]
    SignIn(Arc<str>, RedisError),
    #[error("redis at {0} did not respond to a new connection within {1:?}")]
    Silent(Arc<str>, Duration),
    #[error("cannot connect to redis at {0}: {1}")]
    Other(Arc<str>, RedisError),
}

impl ConnectError {
    pub(super) fn new(address: &Arc<str>, error: RedisError) -> Self {
        let address = address.clone();
        if error.is_connection_refusal() {
            Self::Refused(address)
        } else if error.kind() == ErrorKind::AuthenticationFailed
            || matches!(error.code(), Some("WRONGPASS" | "NOAUTH"))
        {
            Self::SignIn(address, error)
        } else {
            Self::Other(address, error)
        }
    }
}

/// Returns the code of an error, such as `READONLY`.
///
/// Redis 7 returns the error of a command in a script unchanged. Redis 6 wraps the error:
/// `ERR Error running script (call to f_…): @user_script:1: @user_script: 1: -READONLY You can't …`.
fn code(error: &RedisError) -> Option<&str> {
    let code = error.code()?;
    let Some(detail) = error.detail().filter(|_| code == "ERR") else {
        return Some(code);
    };
    if !detail.starts_with("Error running script") {
        return Some(code);
    }
    let words = detail.split_ascii_whitespace();
    let mut codes = words.map(|word| word.trim_start_matches('-'));
    let is_code = |word: &&str| word.len() > 2 && word.bytes().all(|it| it.is_ascii_uppercase());
    codes.find(is_code).or(Some(code))
}

impl Failure {
    fn code(&self) -> Option<&str> {
        match self {
            Self::Redis(error) => code(error),
            _ => None,
        }
    }

    /// Whether the connection must not be used again. A server that has become a replica replies
    /// `READONLY`.
    pub(super) fn ends_connection(&self) -> bool {
        match self {
            Self::Redis(error) => {
                error.is_unrecoverable_error()
                    || error.kind() == ErrorKind::Io
                    || matches!(code(error), Some("READONLY" | "MASTERDOWN"))
            }
            Self::TimedOut => true,
            Self::Connect(_) | Self::Replica(_) | Self::Unfit(_) | Self::Unserved(_) => false,
        }
    }

    /// Whether the connection broke, before or after the command was sent.
    pub(super) fn is_broken_connection(&self) -> bool {
        matches!(self, Self::Redis(error) if error.is_connection_dropped())
    }

    /// Whether another server may be the primary by now.
    pub(super) fn may_be_elsewhere(&self) -> bool {
        match self {
            Self::Redis(error) => {
                error.is_connection_dropped()
                    || matches!(
                        code(error),
                        Some("READONLY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN")
                    )
            }
            Self::Connect(_) | Self::Replica(_) | Self::Unserved(_) | Self::TimedOut => true,
            Self::Unfit(_) => false,
        }
    }

    /// Redis is over its `maxmemory` and refuses writes.
    pub(super) fn is_out_of_memory(&self) -> bool {
        self.code() == Some("OOM")
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Redis(error) if code(&error) == Some("WRONGTYPE") => {
                Self::Undecodable(DecodeError::Damaged)
            }
            Failure::Redis(error) if error.is_timeout() => Self::TimedOut,
            Failure::Redis(error) if error.kind() == ErrorKind::Parse => Self::Unavailable(
                "cannot read the reply of the redis server; is `EVALSHA` or `EVAL` renamed, \
                 or does a proxy rewrite replies?"
                    .into(),
            ),
            Failure::Redis(error) => Self::Unavailable(Box::new(error)),
            Failure::Connect(error) => Self::Unavailable(Box::new(error)),
            Failure::Replica(address) => Self::Unfit(
                format!(
                    "redis at {address} is a replica and takes no writes; \
                     give the address of the primary, or of Sentinels that know it"
                )
                .into(),
            ),
            Failure::Unfit(why) => Self::Unfit((*why).into()),
            Failure::Unserved(why) => Self::Unavailable((*why).into()),
            Failure::TimedOut => Self::TimedOut,
        }
    }
}

pub(super) fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// Whether the user may not run the command, or the server does not know the command.
pub(super) fn is_denied(error: &RedisError) -> bool {
    error.code() == Some("NOPERM") || error.to_string().contains("unknown command")
}

/// The error text for a command that the server refuses.
pub(super) fn missing(command: &str, error: &RedisError) -> String {
    format!(
        "the redis server refuses `{command}`, which the store needs ({error}); \
         allow {NEEDED}, on the keys that begin with the store's prefix, and do not rename these commands"
    )
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    fn failure(line: &str) -> Failure {
        match redis::parse_redis_value(format!("-{line}\r\n").as_bytes()) {
            Ok(Value::ServerError(error)) => Failure::Redis(error.into()),
            other => panic!("not an error: {other:?}"),
        }
    }

    #[test]
    fn an_error_of_the_server_is_never_a_result() {
        for line in [
            "LOADING Redis is loading the dataset in memory",
            "READONLY You can't write against a read only replica.",
            "MOVED 3999 127.0.0.1:6381",
            "CLUSTERDOWN The cluster is down",
            "MASTERDOWN Link with MASTER is down",
            "NOREPLICAS Not enough good replicas to write.",
            "MISCONF Redis is configured to save RDB snapshots",
            "ERR unknown",
        ] {
            let error = StoreError::from(failure(line));
            assert!(matches!(error, StoreError::Unavailable(_)), "{line}");
        }
        assert!(failure("OOM command not allowed").is_out_of_memory());
        let Failure::Redis(forgotten) = failure("NOSCRIPT No matching script.") else {
            panic!("an error of the server");
        };
        assert!(is_unknown_script(&forgotten));
        let wrong_type = StoreError::from(failure("WRONGTYPE Operation against a key"));
        assert!(matches!(wrong_type, StoreError::Undecodable(_)));
    }

    #[test]
    fn a_server_that_refuses_writes_ends_its_connection() {
        for line in [
            "READONLY You can't write against a replica.",
            "MASTERDOWN Link with MASTER is down",
        ] {
            assert!(failure(line).ends_connection(), "{line}");
            assert!(failure(line).may_be_elsewhere(), "{line}");
        }
        for line in ["OOM command not allowed", "NOSCRIPT No matching script."] {
            assert!(!failure(line).ends_connection(), "{line}");
            assert!(!failure(line).may_be_elsewhere(), "{line}");
        }
        let broken = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let broken = Failure::Redis(broken.into());
        assert!(broken.ends_connection() && broken.is_broken_connection());
    }

    #[test]
    fn wrapped_errors_of_redis_6_are_recognized() {
        let wrapped = |error: &str| {
            failure(&format!(
                "ERR Error running script (call to f_a9b1): @user_script:70: @user_script: 70: {error} "
            ))
        };
        for error in [
            "-READONLY You can't write against a read only replica.",
            "-MASTERDOWN Link with MASTER is down",
        ] {
            assert!(wrapped(error).ends_connection(), "{error}");
            assert!(wrapped(error).may_be_elsewhere(), "{error}");
        }
        let full = wrapped("-OOM command not allowed when used memory > 'maxmemory'.");
        assert!(full.is_out_of_memory());
        let wrong_type =
            wrapped("WRONGTYPE Operation against a key holding the wrong kind of value");
        let wrong_type = StoreError::from(wrong_type);
        assert!(matches!(wrong_type, StoreError::Undecodable(_)));
        let other = wrapped("attempt to index a nil value");
        assert_eq!(other.code(), Some("ERR"));
        assert!(!other.ends_connection() && !other.may_be_elsewhere());
    }

    #[test]
    fn connection_errors_name_the_server() {
        let address: Arc<str> = "127.0.0.1:6379".into();
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let refused = ConnectError::new(&address, refused.into());
        assert!(matches!(refused, ConnectError::Refused(_)), "{refused}");
        let Failure::Redis(wrong) = failure("WRONGPASS invalid username-password pair") else {
            panic!("an error of the server");
        };
        let wrong = ConnectError::new(&address, wrong);
        assert!(matches!(wrong, ConnectError::SignIn(..)), "{wrong}");
        let silent = ConnectError::Silent(address, Duration::from_secs(2));
        let words = [refused, wrong, silent].map(|error| error.to_string());
        for words in &words {
            assert!(words.contains("127.0.0.1:6379"), "{words}");
        }
    }
}
