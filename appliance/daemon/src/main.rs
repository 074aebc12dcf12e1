//! The binary `brindle`: what a command line asks for is done, and how it ended is the exit code.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use runtime::sealed::SealingAllocator;

use brindle::cli::{Command, CommandLine, LogFormat, StatusOptions};
use brindle::{check, control_client, demo, serve, verbs};

/// Takes from pages of its own what is sealed.
#[global_allocator]
static ALLOCATOR: SealingAllocator = SealingAllocator;

fn main() -> ExitCode {
    let command = CommandLine::parse().command;
    let as_json = matches!(&command, Command::Serve(options) if options.log_format == LogFormat::Json);
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if as_json {
                // Whoever reads the log as objects finds the reason among them.
                tracing::error!("{error}");
            } else {
                let _ = writeln!(io::stderr(), "{error}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Serve(options) => serve::run(&options)?,
        Command::Demo(options) => demo::run(&options)?,
        Command::Check { file } => say(&check::run(&file)?)?,
        Command::Schema => say(&config::export::json_schema_text())?,
        Command::Status(options) => say(&status_of(&options)?)?,
        Command::Connections(options) => verbs::connections::run(&options)?,
        Command::Top(options) => verbs::top::run(&options)?,
        Command::Log(command) => say(&verbs::log::run(&command)?)?,
        Command::Array(command) => say(&verbs::array::run(&command)?)?,
        Command::Drive(command) => say(&verbs::drive::run(&command)?)?,
        Command::Volume(command) => say(&verbs::volume::run(&command)?)?,
        Command::Events(options) => verbs::events::run(&options, &mut say)?,
        Command::Version => say(concat!("brindle ", env!("CARGO_PKG_VERSION"), "\n"))?,
    }
    Ok(())
}

/// Writes an answer to standard output. That nobody wants to read it to its end is no error.
fn say(text: &str) -> io::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn status_of(options: &StatusOptions) -> Result<String, Box<dyn Error>> {
    let socket = verbs::socket(options.control.as_deref(), options.file.as_deref())?;
    let status = control_client::status(&socket)?;
    if options.memory {
        let (memory, sandbox) = (&status.memory, &status.sandbox);
        let json = || serde_json::to_string_pretty(&serde_json::json!({ "memory": memory, "sandbox": sandbox }));
        return Ok(if options.json { json()? + "\n" } else { format!("{memory}{sandbox}") });
    }
    if options.json {
        return Ok(serde_json::to_string_pretty(&status)? + "\n");
    }
    Ok(status.to_string())
}
