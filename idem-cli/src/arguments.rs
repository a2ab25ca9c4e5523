//! The arguments of the program.

use std::path::PathBuf;
use std::time::Duration;

use axum_idem::ScopeId;
use clap::{Args, Parser, Subcommand, ValueEnum};
use http::{HeaderName, HeaderValue, StatusCode};

use crate::records::Reference;
use crate::secrets::ScopePart;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the store failed, or the audit log could not be written
  2  the arguments or the input are wrong
  3  nothing was found, or the call had no effect
  4  `doctor`: the store is not fit
  5  not confirmed
  6  a record cannot be read: its sealing key is missing, it was changed, or another version wrote it

Keys and scopes are read from the standard input, never from arguments, because other users of the machine
can see arguments. For the same reason, sealing keys and the id secret are read from IDEM_SEAL_KEYS and
IDEM_ID_SECRET, or from files. Responses may contain personal data: headers and bodies are shown only with `--body`.";

/// Finds, inspects, resolves and forgets the idempotency keys of services that use axum-idem.
#[derive(Debug, Parser)]
#[command(name = "idem", version, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) shared: Shared,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Args, Debug)]
pub(crate) struct Shared {
    /// The store: `redis://…`, `redis+unix:///PATH`, `redis+cluster://USER:PASSWORD@HOST,HOST`,
    /// `redis+sentinel://USER:PASSWORD@HOST,HOST/SERVICE?db=NUMBER`, `postgres://…` or `sqlite://PATH`. For TLS, write
    /// `rediss` in place of `redis`. The user and the password are those of the primary; `&sentinel_user=…` and
    /// `&sentinel_password=…` are for the Sentinels. Prefer the variable when the address has a password.
    #[arg(
        long,
        env = "IDEM_STORE",
        value_name = "URL",
        hide_env_values = true,
        global = true
    )]
    pub(crate) store: Option<String>,
    /// The namespace of the service, for `find` and `forget-scope`. Empty by default, as in the library.
    #[arg(
        long,
        env = "IDEM_NAMESPACE",
        default_value = "",
        hide_default_value = true,
        global = true
    )]
    pub(crate) namespace: String,
    /// The table of a PostgreSQL or SQLite store; `idem_records` by default.
    #[arg(long, global = true)]
    pub(crate) table: Option<String>,
    /// The schema of the table in PostgreSQL.
    #[arg(long, global = true)]
    pub(crate) schema: Option<String>,
    /// The prefix of the keys in Redis; `idem:` by default.
    #[arg(long, global = true)]
    pub(crate) prefix: Option<String>,
    /// The file with the sealing keys of the service: one `ID:KEY` in each line, a number and 64 hexadecimal digits,
    /// with the primary key first. `IDEM_SEAL_KEYS` can have the same list instead, with spaces in place of the lines.
    #[arg(long, value_name = "PATH", global = true)]
    pub(crate) seal_keys_file: Option<PathBuf>,
    /// Reads also records that are not sealed, as `Sealed::read_unsealed` of the service does.
    #[arg(long, global = true)]
    pub(crate) read_unsealed: bool,
    /// The file with the secret that the service passes to `id_secret`, for `find` and `forget-scope`. A line break at
    /// its end is left out. `IDEM_ID_SECRET` can have the secret instead.
    #[arg(long, value_name = "PATH", global = true)]
    pub(crate) id_secret_file: Option<PathBuf>,
    /// How long one call of the store may take, such as `30s`.
    #[arg(long, default_value = "30s", value_parser = duration, global = true)]
    pub(crate) timeout: Duration,
    /// Prints JSON instead of tables.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Lists records, of all namespaces that share the store. With `--json`, one object in each line.
    List(List),
    /// Shows one record, and what a retry would get now.
    Show(Show),
    /// Finds the records of keys: reads the parts of the scope and then the keys from the standard input, one in
    /// each line.
    Find(Find),
    /// Records a response for a key whose outcome is unknown. Retries get this response.
    Resolve(Resolve),
    /// Removes records. The next request with such a key runs its handler.
    Forget(Forget),
    /// Removes all records of one scope, such as those of a customer. Reads the parts of the scope from the
    /// standard input, one in each line.
    ForgetScope(ForgetScope),
    /// Counts the records, and shows how full the store is.
    Stats,
    /// Removes expired records. Stores do so themselves; this helps when the sweeper of the service is off.
    Sweep,
    /// Prints the SQL of the tables. Connects to nothing.
    Schema(SchemaOf),
    /// Checks whether the store is fit: eviction, durability, version, rights and clock.
    Doctor,
}

#[derive(Args, Debug)]
pub(crate) struct List {
    /// Only records in this state.
    #[arg(long)]
    pub(crate) state: Option<StateFilter>,
    /// Only records of this endpoint: the path of the handler, such as `desk::place_trade`.
    #[arg(long)]
    pub(crate) endpoint: Option<String>,
    /// Only records of the scope with this id, which `find` and `show` print.
    #[arg(long, value_name = "ID")]
    pub(crate) scope_id: Option<ScopeId>,
    /// Only records that are at least this old, such as `10m`.
    #[arg(long, value_name = "AGE", value_parser = duration)]
    pub(crate) older_than: Option<Duration>,
    /// How many records are listed at most.
    #[arg(long, default_value_t = 100, conflicts_with = "all")]
    pub(crate) limit: usize,
    /// Lists every record.
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum StateFilter {
    /// A handler runs.
    InFlight,
    /// Nobody knows the outcome.
    Unknown,
    /// There is a response to replay.
    Recorded,
    /// This version of the program cannot read the record.
    Unreadable,
}

#[derive(Args, Debug)]
pub(crate) struct Show {
    /// The record: its 64 digits, its URN, or the 12 digits of the log.
    pub(crate) record: Reference,
    /// Shows the values of the headers and the body of the response, which may contain personal data.
    #[arg(long)]
    pub(crate) body: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Find {
    #[command(flatten)]
    pub(crate) scope: ScopeParts,
    /// Shows the values of the headers and the body of the response, which may contain personal data.
    #[arg(long)]
    pub(crate) body: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ScopeParts {
    /// How the service builds its scope: `global`, `token`, `header:NAME` or `value`. Repeat it for a tuple, in
    /// the same order. The standard input has one line for each part, except for `global`.
    #[arg(long = "scope", value_name = "PART", required = true)]
    pub(crate) parts: Vec<ScopePart>,
}

#[derive(Args, Debug)]
pub(crate) struct Resolve {
    /// The record: its 64 digits, its URN, or the 12 digits of the log.
    pub(crate) record: Reference,
    /// The status of the response.
    #[arg(long, value_parser = status)]
    pub(crate) status: StatusCode,
    /// A header of the response, such as `content-type: application/json`. Can be repeated.
    #[arg(long = "header", value_name = "HEADER", value_parser = header)]
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// The file with the body of the response; `-` is the standard input. Without it, the body is empty.
    #[arg(long, value_name = "PATH")]
    pub(crate) body_file: Option<PathBuf>,
    /// How long retries get the response, such as `24h`. Use the `ttl` of the endpoint.
    #[arg(long, value_parser = duration)]
    pub(crate) ttl: Duration,
    /// The fence of the attempt that the decision is about, which `show` prints. When a later attempt has run, nothing
    /// is changed. Without it, the program shows the attempt and asks for confirmation at the terminal.
    #[arg(long)]
    pub(crate) fence: Option<u64>,
    #[command(flatten)]
    pub(crate) audit: Audit,
}

#[derive(Args, Debug)]
pub(crate) struct Forget {
    /// The records: their 64 digits, their URNs, or the 12 digits of the log.
    #[arg(required = true)]
    pub(crate) records: Vec<Reference>,
    /// Does not ask for confirmation.
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) audit: Audit,
}

#[derive(Args, Debug)]
pub(crate) struct ForgetScope {
    #[command(flatten)]
    pub(crate) scope: ScopeParts,
    /// Does not ask for confirmation.
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) audit: Audit,
}

#[derive(Args, Debug)]
pub(crate) struct Audit {
    /// Why this is done. It is written to the audit log, with the time and the user.
    #[arg(long)]
    pub(crate) reason: String,
    /// The file to which the audit log is appended. The log goes to the standard error in any case.
    #[arg(long, env = "IDEM_AUDIT_LOG", value_name = "PATH")]
    pub(crate) audit_log: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct SchemaOf {
    /// The database.
    pub(crate) database: Database,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Database {
    Postgres,
    Sqlite,
}

/// Reads `90s`, `15m`, `24h` or `7d`. Zero is refused: a response that expires at once would not stop a retry.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "cannot read `{text}` as a duration; write a number and a unit, such as `90s`, `15m`, `24h` or `7d`"
        )
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    if number == 0 {
        return Err(format!("`{text}` is zero; write a longer duration"));
    }
    let seconds = number.checked_mul(seconds).ok_or_else(wrong)?;
    Ok(Duration::from_secs(seconds))
}

fn status(text: &str) -> Result<StatusCode, String> {
    let status = text.parse::<StatusCode>();
    status
        .ok()
        .filter(|status| (200..600).contains(&status.as_u16()))
        .ok_or_else(|| format!("`{text}` is not a status of a final response, from 200 to 599"))
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let wrong = || "write a header as `name: value`".to_owned();
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let name = name.trim().parse().map_err(|_| wrong())?;
    let value = value.trim().parse().map_err(|_| wrong())?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("7d"), Ok(Duration::from_hours(7 * 24)));
        for text in [
            "",
            "90",
            "h",
            "1w",
            "-1s",
            "1.5h",
            "0s",
            "00h",
            "99999999999999999d",
            "1 h",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_final_statuses_are_accepted() {
        assert_eq!(status("201"), Ok(StatusCode::CREATED));
        for text in ["100", "199", "600", "2xx", ""] {
            assert!(status(text).is_err(), "{text}");
        }
    }
}
