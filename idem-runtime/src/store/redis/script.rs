//! The transitions. Each is one script that Redis executes atomically.

use std::sync::LazyLock;

use redis::{Cmd, Script};

/// The source of a transition, and its hash in the server's script cache.
#[derive(Debug)]
pub(super) struct Transition {
    code: &'static str,
    script: Script,
}

/// Bytes for all arguments of a command without a response body.
const ROOM: usize = 256;

macro_rules! transition {
    ($name:ident, $file:literal) => {
        pub(super) static $name: LazyLock<Transition> = LazyLock::new(|| {
            Transition::new(concat!(
                include_str!("lua/head.lua"),
                include_str!(concat!("lua/", $file))
            ))
        });
    };
}

transition!(CLAIM, "claim.lua");
transition!(RENEW, "renew.lua");
transition!(COMPLETE, "complete.lua");
transition!(RELEASE, "release.lua");
transition!(ABANDON, "abandon.lua");
transition!(LOOK_UP, "look_up.lua");
transition!(RESOLVE, "resolve.lua");
/// Has no `head.lua`, because that script stops at values that cannot be read.
pub(super) static IDENTIFY: LazyLock<Transition> = LazyLock::new(|| {
    Transition::new(concat!(
        include_str!("lua/identity.lua"),
        include_str!("lua/identify.lua")
    ))
});
pub(super) static FORGET: LazyLock<Transition> = LazyLock::new(|| {
    Transition::new(concat!(
        include_str!("lua/identity.lua"),
        include_str!("lua/forget.lua")
    ))
});
pub(super) static GONE: LazyLock<Transition> = LazyLock::new(|| {
    Transition::new(concat!(
        include_str!("lua/identity.lua"),
        include_str!("lua/gone.lua")
    ))
});

/// Without the head, because a listing shows what this version cannot read, and reads no long record.
pub(super) static SUMMARY: LazyLock<Transition> =
    LazyLock::new(|| Transition::new(include_str!("lua/summary.lua")));

/// Every transition, with arguments of the right form.
pub(super) fn all() -> [(&'static Transition, &'static [&'static [u8]]); 10] {
    const HOLDER: &[u8] = &[0; 24];
    const SECOND: &[u8] = b"1000";
    const NEVER: &[u8] = b"9007199254740991";
    [
        (&CLAIM, &[&[0; 16], &[0; 40], SECOND, b"1", &[0; 18], NEVER]),
        (&RENEW, &[HOLDER, SECOND]),
        (&COMPLETE, &[HOLDER, b"record", SECOND]),
        (&RELEASE, &[HOLDER]),
        (&ABANDON, &[HOLDER]),
        (&LOOK_UP, &[]),
        (&RESOLVE, &[&[0; 8], b"record", SECOND]),
        (&IDENTIFY, &[]),
        (&FORGET, &[b"S"]),
        (&GONE, &[b"S"]),
    ]
}

impl Transition {
    fn new(code: &'static str) -> Self {
        Self {
            code,
            script: Script::new(code),
        }
    }

    /// Runs the script by its hash, so that the server does not parse it.
    pub(super) fn by_name(&self, key: &str, arguments: &[&[u8]], last: Option<&[u8]>) -> Cmd {
        Self::command("EVALSHA", self.script.get_hash(), key, arguments, last)
    }

    /// Runs the script from its source, and stores it in the server's cache. The server does not
    /// know the hash after a restart, a failover or `SCRIPT FLUSH`.
    pub(super) fn by_source(&self, key: &str, arguments: &[&[u8]], last: Option<&[u8]>) -> Cmd {
        Self::command("EVAL", self.code, key, arguments, last)
    }

    fn command(
        how: &str,
        script: &str,
        key: &str,
        arguments: &[&[u8]],
        last: Option<&[u8]>,
    ) -> Cmd {
        let mut command = Cmd::with_capacity(5 + arguments.len(), ROOM);
        command.arg(how).arg(script).arg(1).arg(key);
        for argument in arguments.iter().copied().chain(last) {
            command.arg(argument);
        }
        command
    }
}
