//! Tries every command and every script that the store will send, before the store is used.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline};

use super::failure::{Failure, is_denied, missing};
use super::script;

/// How many keys are tried until one belongs to this server. A server with few slots may have no
/// such key.
const KEYS: u32 = 20_000;

/// Tries every command and every script on a key that no record uses, and removes the key.
///
/// # Errors
///
/// [`Failure::Unfit`] with the name of the command that the server refuses.
pub(super) async fn probe(
    connection: &mut MultiplexedConnection,
    prefix: &str,
    serves: impl Fn(&str) -> bool,
    waits: bool,
    is_cluster: bool,
) -> Result<(), Failure> {
    let number = getrandom::u64().unwrap_or_default();
    let mut keys = (0..KEYS).map(|n| format!("{prefix}probe:{number:x}:{n}"));
    let Some(key) = keys.find(|key| serves(key)) else {
        return Ok(());
    };
    let get = redis::Script::new("return redis.call('GET', KEYS[1])");
    let mut all = vec![
        command("TIME", &[]),
        command("SET", &[&key, "probe", "PX", "10000"]),
        command("GET", &[&key]),
        command("PTTL", &[&key]),
        command("PEXPIRE", &[&key, "10000"]),
        command("EVAL", &["return redis.call('GET', KEYS[1])", "1", &key]),
        // No binary arguments here, because a server that refuses a renamed command repeats the
        // arguments.
        command("EVALSHA", &[get.get_hash(), "1", &key]),
        command("DEL", &[&key]),
    ];
    if waits {
        all.push(command("WAIT", &["0", "1"]));
    }
    if is_cluster {
        all.push(command("ASKING", &[]));
    }
    send(connection, &all).await?;

    let mut all: Vec<_> = script::all()
        .iter()
        .map(|(transition, arguments)| ("EVAL", transition.by_source(&key, arguments, None)))
        .collect();
    all.push(command("DEL", &[&key]));
    send(connection, &all).await
}

fn command(name: &'static str, arguments: &[&str]) -> (&'static str, Cmd) {
    let mut command = redis::cmd(name);
    command.arg(arguments);
    (name, command)
}

/// Sends all commands, and reads every reply.
async fn send(
    connection: &mut MultiplexedConnection,
    commands: &[(&'static str, Cmd)],
) -> Result<(), Failure> {
    let mut all = Pipeline::with_capacity(commands.len());
    for (_, command) in commands {
        all.add_command(command.clone());
    }
    let replies = connection.send_packed_commands(&all, 0, commands.len());
    for ((name, _), reply) in commands.iter().zip(replies.await?) {
        match reply.extract_error().map_err(Failure::Redis) {
            Ok(_) => {}
            // A server whose memory is full can still replay its records.
            Err(failure) if failure.is_out_of_memory() => {}
            Err(Failure::Redis(error)) if is_denied(&error) => {
                return Err(Failure::Unfit(missing(name, &error).into()));
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(())
}
