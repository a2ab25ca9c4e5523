//! Runs the program against real stores.

mod arguments;
mod harness;
mod sealing;
mod walk;
