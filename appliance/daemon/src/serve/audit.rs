//! Who changed what: each method that changes something is an event before it is carried out, and so is its outcome.

use serde_json::Value;

use super::methods;
use super::report::Reporter;
use crate::control::Caller;
use crate::events::{Severity, Told};

/// Carries out a method; none if there is none of this name.
pub(super) fn call(reporter: &Reporter, caller: Caller, method: &str, params: Value) -> Option<Result<Value, String>> {
    if methods::only_asks(method) {
        return methods::call(reporter, method, params);
    }
    let event = |name, severity, text: String| {
        let told = Told::new(name, severity, text).with("method", method).with("uid", caller.uid);
        match caller.pid {
            Some(pid) => told.with("pid", pid),
            None => told,
        }
    };
    let by = format!("user {}{}", caller.uid, caller.pid.map_or_else(String::new, |pid| format!(", process {pid}")));
    let given = event("command.given", Severity::Notice, format!("{by}: {method} {params}"));
    reporter.events.tell(given.with("params", params.clone()));
    // Nothing is done, and nothing answered, that the history would not know of after a crash.
    reporter.events.settle();
    let outcome = methods::call(reporter, method, params);
    reporter.events.tell(match &outcome {
        Some(Ok(_)) => event("command.done", Severity::Notice, format!("{by}: {method} is done")),
        Some(Err(error)) => {
            event("command.failed", Severity::Warning, format!("{by}: {method}: {error}")).with("error", error.as_str())
        }
        None => event("command.failed", Severity::Warning, format!("{by}: there is no method {method}")),
    });
    reporter.events.settle();
    outcome
}
