//! Runs the program against real stores.

mod arguments;
mod harness;
mod killed;
mod sealing;
mod walk;
