//! The metrics endpoint: `/metrics` in Prometheus' text format, `/healthz` (the process lives), `/readyz` (hosts are
//! served). Connections are bounded in number and idle ones are ended; there is no access control.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use crate::control::ControlSetup;
use crate::exposition;

/// Most connections at once. More wait in the system's queue.
pub const MAX_CONNECTIONS: usize = 32;

/// How long a connection may be idle. Prometheus connects anew if it scrapes less often.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// How long to wait after the system has refused to accept, for want of descriptors for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Serves until the thread ends.
pub async fn serve(listener: TcpListener, setup: Arc<ControlSetup>) {
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .with_state(setup);
    let served = async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let bounded = BoundedListener { listener, places: Arc::new(Semaphore::new(MAX_CONNECTIONS)) };
        axum::serve(bounded, routes).await
    };
    if let Err(error) = served.await {
        tracing::error!(%error, "the metrics endpoint has ended");
    }
}

async fn metrics(State(setup): State<Arc<ControlSetup>>) -> impl IntoResponse {
    match exposition::text(&setup.metrics, &(setup.reactor_times)()) {
        Ok(text) => (StatusCode::OK, [(CONTENT_TYPE, exposition::CONTENT_TYPE)], text),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, [(CONTENT_TYPE, "text/plain; charset=utf-8")], format!("{error}\n"))
        }
    }
}

async fn ready(State(setup): State<Arc<ControlSetup>>) -> impl IntoResponse {
    if (setup.ready)() { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") }
}

/// Accepts as long as there are places.
struct BoundedListener {
    listener: tokio::net::TcpListener,
    places: Arc<Semaphore>,
}

impl axum::serve::Listener for BoundedListener {
    type Io = BoundedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let place = Arc::clone(&self.places).acquire_owned().await.expect("the semaphore is never closed");
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    let idle = Box::pin(tokio::time::sleep(IDLE_LIMIT));
                    return (BoundedStream { stream, idle, _place: place }, peer);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for metrics");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that holds a place and ends when nothing moves.
struct BoundedStream {
    stream: TcpStream,
    idle: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl BoundedStream {
    /// Starts the wait anew when something has moved, and ends it with an error when nothing has for too long.
    fn watched<T>(&mut self, cx: &mut Context<'_>, moved: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match moved {
            Poll::Ready(result) => {
                self.idle.as_mut().reset(Instant::now() + IDLE_LIMIT);
                Poll::Ready(result)
            }
            Poll::Pending => match self.idle.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                Poll::Pending => Poll::Pending,
            },
        }
    }
}

impl AsyncRead for BoundedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let moved = Pin::new(&mut self.stream).poll_read(cx, into);
        self.watched(cx, moved)
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watched(cx, moved)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[test]
    fn a_connection_on_which_nothing_moves_is_ended() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let places = Arc::new(Semaphore::new(1));
            let mut bounded = BoundedListener { listener, places: Arc::clone(&places) };
            let _peer = TcpStream::connect(address).await.unwrap();
            let (mut stream, _) = axum::serve::Listener::accept(&mut bounded).await;
            assert_eq!(places.available_permits(), 0);
            // The limit has passed, as far as the stream knows.
            stream.idle.as_mut().reset(Instant::now());
            let error = stream.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            drop(stream);
            assert_eq!(places.available_permits(), 1, "the place is free again");
        });
    }
}
