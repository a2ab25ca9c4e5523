//! Runs the program against real stores.

mod arguments;
mod audit;
mod confirmed;
mod harness;
mod killed;
mod rights;
mod sealing;
mod sentinel;
mod walk;
