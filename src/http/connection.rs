//! The connection of a request, for routes that wait: whether its client is still there.
//!
//! actix-web goes on with a request whose client has closed the connection, since a client may close its sending side
//! alone. What waits asks here: a second handle of the socket tells, without reading, whether the other side has
//! closed. A client that closes its sending side before it has the answer counts as gone, as it does for proxies.

use crate::topics::StreamClient;
use actix_web::HttpRequest;
use actix_web::dev::Extensions;
use std::any::Any;
use std::io::ErrorKind;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;

/// A second handle of a connection's socket; clones are the same.
#[derive(Clone)]
struct Socket(Arc<TcpStream>);

impl StreamClient for Socket {
    fn is_gone(&self) -> bool {
        match self.0.peek(&mut [0]) {
            Ok(bytes) => bytes == 0,
            // actix has made the socket one that does not block.
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    fn cut(&self) {
        // It may be closed already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// Remembers the socket of a new connection. Called by actix-web for each of them.
pub fn remember(connection: &dyn Any, data: &mut Extensions) {
    let Some(stream) = connection.downcast_ref::<actix_rt::net::TcpStream>() else {
        return;
    };
    // Without a file descriptor to spare, clients of this connection count as there.
    if let Ok(socket) = stream.as_fd().try_clone_to_owned() {
        data.insert(Socket(Arc::new(TcpStream::from(socket))));
    }
}

/// Whether the client of a request has closed the connection.
pub fn is_closed(request: &HttpRequest) -> bool {
    request
        .conn_data::<Socket>()
        .is_some_and(StreamClient::is_gone)
}

/// The connection of a request that is answered with a stream.
pub fn client(request: &HttpRequest) -> Option<Box<dyn StreamClient>> {
    let socket = request.conn_data::<Socket>()?;
    Some(Box::new(socket.clone()))
}
