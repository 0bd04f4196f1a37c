//! Answers in pieces of every size, over real sockets.

use tokio::io::AsyncWriteExt as _;
use weir_io::{net::Listener as _, os::OsListener};

use super::*;

/// What a client makes of `answer` when it comes in pieces of `step` bytes into a buffer of
/// `buffer` bytes.
async fn ask(
    answer: &'static [u8],
    step: usize,
    buffer: usize,
) -> Result<(Head, Vec<u8>), Failure> {
    let mut listener = OsListener::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let address = listener.local_addr().expect("bound");
    let server = async {
        let (mut socket, _) = listener.accept().await.expect("a client");
        let mut request = [0; 3];
        socket.read_exact(&mut request).await.expect("a request");
        assert_eq!(&request, b"ask");
        for piece in answer.chunks(step) {
            socket.write_all(piece).await.expect("it listens");
            tokio::task::yield_now().await;
        }
    };
    let client = async {
        let mut connection = Connection::open(address.into(), buffer).await?;
        let head = connection.ask(b"ask").await?;
        let mut body = Vec::new();
        while let Some(piece) = connection.piece().await? {
            body.extend_from_slice(connection.bytes(piece));
        }
        assert_eq!(connection.is_usable(), !head.last);
        Ok((head, body))
    };
    tokio::join!(server, client).1
}

#[tokio::test]
async fn a_body_is_the_same_however_it_comes() {
    for (answer, expect) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789"[..], &b"0123456789"[..]),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", b"to the end"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length:1\r\n\r\nx", b"x"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
              3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n",
            b"abc0123456789",
        ),
    ] {
        for (step, buffer) in [(1, 1), (2, 16), (3, 64), (7, 1_024), (1_000, 1_000)] {
            let (head, body) = ask(answer, step, buffer).await.expect("an answer");
            assert_eq!(body, expect, "steps of {step}: {head:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_none() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n0123456789"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 20",
    ] {
        assert!(ask(answer, 5, 64).await.is_err(), "{answer:?}");
    }
}

#[test]
fn an_excuse_is_one_line_of_words() {
    for (text, line) in [
        ("", ""),
        (" busy\r\n", "busy"),
        ("{\"error\":\n  \"a < b\"}", "{\"error\": \"a < b\"}"),
        ("<!DOCTYPE HTML>\n<p>Error\n code: <b>501</b></p>\n<p class=", "Error code: 501"),
    ] {
        assert_eq!(in_a_line(text), line);
    }
}
