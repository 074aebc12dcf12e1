//! Asking before what cannot be undone.

use std::io::{self, BufRead, IsTerminal, Write};

use thiserror::Error;

use crate::cli::Consent;

/// Why nothing was done.
#[derive(Debug, Error)]
pub enum Refused {
    /// The operator said no.
    #[error("nothing was done")]
    No,
    /// There is nobody to ask.
    #[error("{plan}\nThere is no terminal to ask at, and nothing was done: say --yes if that is what you want")]
    NobodyToAsk {
        /// What would have been done.
        plan: String,
    },
    /// The terminal cannot be read.
    #[error("the answer cannot be read, and nothing was done: {0}")]
    Unreadable(#[from] io::Error),
}

/// Shows what is about to be done and asks for a word, unless it was given on the command line.
pub fn ask(plan: &str, consent: Consent) -> Result<(), Refused> {
    if consent.yes {
        return Ok(());
    }
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Refused::NobodyToAsk { plan: plan.to_owned() });
    }
    let mut stderr = io::stderr();
    write!(stderr, "{plan}\nType yes to go on: ")?;
    stderr.flush()?;
    let mut line = String::new();
    stdin.lock().read_line(&mut line)?;
    if line.trim() == "yes" { Ok(()) } else { Err(Refused::No) }
}
