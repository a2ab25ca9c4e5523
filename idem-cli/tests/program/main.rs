//! Runs the program against real stores.

mod arguments;
mod confirmed;
mod harness;
mod killed;
mod rights;
mod sealing;
mod walk;
