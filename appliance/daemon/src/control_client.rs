//! Asking a serving process over its control socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use thiserror::Error;

use crate::status::Status;

/// Longest wait for the answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// Longest answer in bytes.
const MAX_ANSWER_BYTES: u64 = 64 << 20;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// There is no socket, or nobody listens at it.
    #[error("nobody serves at the control socket {}: start brindle serve, or name its socket with --control", .0.display())]
    NobodyServes(PathBuf),
    /// The socket belongs to somebody else.
    #[error("the control socket {} belongs to another user", .0.display())]
    NotAllowed(PathBuf),
    /// The connection broke or took too long.
    #[error("no answer from the control socket {}: {source}", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The answer cannot be understood.
    #[error("the control socket {} answers something else: {source}", path.display())]
    Misunderstood {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The server refused.
    #[error("the server says: {0}")]
    Refused(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer<T> {
    Result(T),
    Error(String),
}

/// Asks for the status.
pub fn status(path: &Path) -> Result<Status, ClientError> {
    call(path, "status", &Value::Null)
}

/// Has a method carried out.
pub fn call<T: DeserializeOwned>(path: &Path, method: &str, params: &Value) -> Result<T, ClientError> {
    let request = match params {
        Value::Null => json!({ "method": method }),
        params => json!({ "method": method, "params": params }),
    };
    let line = ask(path, &format!("{request}\n")).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NobodyServes(path.to_owned()),
        io::ErrorKind::PermissionDenied => ClientError::NotAllowed(path.to_owned()),
        _ => ClientError::Broken { path: path.to_owned(), source },
    })?;
    match serde_json::from_slice(&line) {
        Ok(Answer::Result(result)) => Ok(result),
        Ok(Answer::Error(message)) => Err(ClientError::Refused(message)),
        Err(source) => Err(ClientError::Misunderstood { path: path.to_owned(), source }),
    }
}

fn ask(path: &Path, request: &str) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.set_write_timeout(Some(ANSWER_LIMIT))?;
    stream.write_all(request.as_bytes())?;
    let mut line = Vec::new();
    BufReader::new(stream).take(MAX_ANSWER_BYTES).read_until(b'\n', &mut line)?;
    match line.ends_with(b"\n") {
        true => Ok(line),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::Folder;
    use std::os::unix::net::UnixListener;

    /// What a client makes of an answer.
    fn answered(name: &str, answer: &'static [u8]) -> ClientError {
        let folder = Folder::new(name);
        let path = folder.0.join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut request = String::new();
            BufReader::new(&stream).read_line(&mut request).unwrap();
            (&stream).write_all(answer).unwrap();
        });
        let error = status(&path).unwrap_err();
        server.join().unwrap();
        error
    }

    #[test]
    fn every_answer_that_is_none_is_told_apart() {
        assert!(matches!(answered("client-cut", b"{\"result\":"), ClientError::Broken { .. }));
        assert!(matches!(answered("client-empty", b""), ClientError::Broken { .. }));
        assert!(matches!(answered("client-junk", b"hello\n"), ClientError::Misunderstood { .. }));
        assert!(matches!(answered("client-error", b"{\"error\":\"no\"}\n"), ClientError::Refused(_)));
        assert!(matches!(status(Path::new("/nonexistent/s")), Err(ClientError::NobodyServes(_))));
    }
}
