//! Servers that come, go, break off and are late.

use std::convert::Infallible;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};
use weir_io::{
    memory::{Hang, Machine, MemoryListener},
    net::Listener as _,
};

use super::*;
use crate::client::{Client, Info, Stream};

const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 8080);
const HOUR: Duration = Duration::from_secs(3_600);

fn client(machine: &Machine, absent: Absent) -> Client {
    let target = Target::parse("http://127.0.0.1:8080", None).expect("a URL");
    let patience = Patience { absent, ..Patience::default() };
    Client::new(machine.boot(Duration::ZERO), target, patience)
}

fn attempts(machine: &Machine) -> u64 {
    machine.outbound().attempts().get(&ADDRESS.into()).copied().unwrap_or(0)
}

/// Asks a server that answers one request and is gone.
async fn asked_once(machine: &Machine, stream: &Stream) -> Result<Info, Error> {
    // It listens before it is asked.
    let listener = machine.outbound().listen(ADDRESS.into()).expect("nobody listens there");
    let (answer, ()) = tokio::join!(stream.head(), answer_once(listener));
    answer
}

async fn answer_once(mut listener: MemoryListener) {
    let (mut socket, _) = listener.accept().await.expect("a connection");
    drop(listener);
    let mut request = [0; 1_024];
    assert!(socket.read(&mut request).await.expect("a request") > 0);
    let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    socket.write_all(answer).await.expect("it listens");
}

async fn within_a_world(work: impl Future<Output = ()>) {
    tokio::task::LocalSet::new().run_until(work).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_never_there_is_tried_once_unless_it_may_come() {
    within_a_world(async {
        let machine = Machine::new(1);
        let began = Instant::now();
        let failed = client(&machine, Absent::IsAbsent).stream("a").head().await;
        assert!(matches!(failed, Err(Error::Unreachable { .. })), "{failed:?}");
        assert_eq!((attempts(&machine), began.elapsed()), (1, Duration::ZERO));
        let failed = client(&machine, Absent::MayCome).stream("a").head().await;
        assert!(matches!(failed, Err(Error::Unreachable { .. })), "{failed:?}");
        assert!(attempts(&machine) > 5, "{}", attempts(&machine));
        assert!(began.elapsed() >= Patience::default().total, "{:?}", began.elapsed());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_there_is_waited_for() {
    within_a_world(async {
        let machine = Machine::new(1);
        let stream = client(&machine, Absent::IsAbsent).stream("a");
        let answer = asked_once(&machine, &stream).await;
        assert!(matches!(answer, Err(Error::NotFound { .. })), "{answer:?}");
        let failed = stream.head().await;
        assert!(matches!(failed, Err(Error::Unreachable { .. })), "{failed:?}");
        assert!(attempts(&machine) > 5, "{}", attempts(&machine));
    })
    .await;
}

/// Answers every request with a page that breaks off.
async fn cut_pages(mut listener: MemoryListener) -> Infallible {
    loop {
        let (mut socket, _) = listener.accept().await.expect("a connection");
        let mut request = [0; 1_024];
        assert!(socket.read(&mut request).await.expect("a request") > 0);
        let page = b"HTTP/1.1 200 OK\r\nStream-Next-Offset: 1\r\nContent-Length: 9\r\n\r\npart";
        socket.write_all(page).await.expect("it listens");
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_that_breaks_off_is_asked_for_until_the_time_is_over() {
    within_a_world(async {
        let machine = Machine::new(1);
        let listener = machine.outbound().listen(ADDRESS.into()).expect("nobody listens there");
        let stream = client(&machine, Absent::IsAbsent).stream("a");
        let began = Instant::now();
        let page = tokio::select! {
            page = stream.page(&crate::client::From::Start, None) => page,
            never = cut_pages(listener) => match never {},
        };
        assert!(matches!(page, Err(Error::BrokenOff { .. })), "{page:?}");
        assert!(attempts(&machine) > 5, "{}", attempts(&machine));
        assert!(began.elapsed() >= Patience::default().total, "{:?}", began.elapsed());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn only_the_first_answer_is_told_to_be_late() {
    within_a_world(async {
        let machine = Machine::new(1);
        let late = Duration::from_secs(2);
        for how in [Hang::Connecting, Hang::Answering] {
            machine.outbound().hang(ADDRESS.into(), Some(how));
            let client = client(&machine, Absent::IsAbsent);
            let nothing_asked = timeout(HOUR, client.unanswered(late)).await;
            assert!(nothing_asked.is_err(), "nobody waits");
            let (stream, began) = (client.stream("a"), Instant::now());
            tokio::select! {
                answer = stream.head() => panic!("{answer:?}"),
                () = client.unanswered(late) => assert_eq!(began.elapsed(), late, "{how:?}"),
            }
        }
        machine.outbound().hang(ADDRESS.into(), None);
        let client = client(&machine, Absent::IsAbsent);
        let stream = client.stream("a");
        let requests = async {
            for _ in 0..2 {
                let answer = asked_once(&machine, &stream).await;
                assert!(matches!(answer, Err(Error::NotFound { .. })), "{answer:?}");
            }
        };
        let late = timeout(HOUR, client.unanswered(late));
        let (late, ()) = tokio::join!(late, requests);
        assert!(late.is_err(), "it has answered");
    })
    .await;
}
