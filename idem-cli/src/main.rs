//! `idem`, the program for operators of axum-idem.
//!
//! `arguments.rs` has the arguments, and `commands/` one file for each group of commands. `stores.rs` opens the store,
//! `redis_address.rs` reads the address of a cluster or of Sentinels, `secrets.rs` reads scopes and keys from the standard
//! input, `sealing.rs` reads the secrets of the service, and `output/` prints.

mod arguments;
mod audit;
mod commands;
mod confirm;
mod failure;
mod output;
mod records;
mod redis_address;
mod sealing;
mod secrets;
mod stores;

use std::io::{Write, stderr};
use std::process::ExitCode;

use clap::Parser;

use crate::arguments::Arguments;
use crate::output::text::safe_lines;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match commands::run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(message) = failure.message() {
                // Its reader may have gone.
                let _ = writeln!(stderr(), "idem: {}", safe_lines(&message));
            }
            failure.exit_code()
        }
    }
}
