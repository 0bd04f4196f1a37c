//! When requests are sent, and who watches the clock.
//!
//! ```text
//! begin ──warm-up──▶ measured.start ──────────▶ measured.end ─▶ requests on their way end
//! ```
//! An interrupt ends a run early; what was written is verified and cleaned up all the same. Either
//! way what has no answer a while later is given up: nobody waits for a server that says nothing.
//!
//! A closed loop sends the next request when the answer to the last one is there. An open loop
//! sends on schedule, whatever the answers do; each time counts from when the request was due, not
//! from when a connection was free for it, so that a stall is seen by all requests it delayed.

use std::{
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use parking_lot::Mutex;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};
use weir_io::{
    Clock as _,
    os::{OsClock, Timer, usage, workers},
};

use super::{
    measure::{Books, Shared, Span},
    raw::{Failure, Link, Peer},
    report::Costs,
    setup::Interrupted,
};
use crate::cli::{
    ONE_SIGNAL,
    client::{
        exit::INTERRUPTED,
        progress::{Progress, of_time},
    },
};

/// How long connections may take to be made before time starts, with each of them and at least.
const SETTLE_EACH: Duration = Duration::from_micros(500);
const SETTLE_MIN: Duration = Duration::from_millis(50);

/// How long requests on their way may take when the time is over, and when somebody wants the end.
const ANSWERS_MAX: Duration = Duration::from_secs(10);
const GRACE: Duration = Duration::from_secs(1);

/// Between two looks at the time.
const LOOK: Duration = Duration::from_millis(500);

/// What all connections of a run share.
#[derive(Clone)]
pub(super) struct Run {
    pub(super) clock: Arc<OsClock>,
    pub(super) peer: Peer,
    /// When writers begin.
    pub(super) begin: Duration,
    pub(super) span: Span,
    pub(super) server: Option<u32>,
    /// How long answers may take when the time is over.
    answers_max: Duration,
    /// Tells that somebody wants it to end early.
    stopped: Arc<watch::Sender<bool>>,
    schedule: Option<Arc<Schedule>>,
}

/// How long a run takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Length {
    pub(super) warm_up: Duration,
    pub(super) measured: Duration,
}

/// Requests that are due at fixed times, whoever sends them.
struct Schedule {
    begin: Duration,
    per_second: f64,
    next: AtomicU64,
}

impl Run {
    /// A run that begins when its connections can have been made; `rate` requests are due each second, or as many as there can be.
    pub(super) fn new(
        clock: &Arc<OsClock>,
        peer: Peer,
        length: Length,
        connections: usize,
        rate: Option<f64>,
    ) -> Self {
        let connections = u32::try_from(connections).unwrap_or(u32::MAX);
        let begin = clock.elapsed() + SETTLE_MIN + SETTLE_EACH.saturating_mul(connections);
        let start = begin + length.warm_up;
        let schedule = rate
            .map(|per_second| Arc::new(Schedule { begin, per_second, next: AtomicU64::new(0) }));
        Self {
            clock: Arc::clone(clock),
            peer,
            begin,
            span: Span::new(start..start + length.measured),
            server: None,
            answers_max: ANSWERS_MAX,
            stopped: Arc::new(watch::Sender::new(false)),
            schedule,
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    /// Whether the time is over.
    pub(super) fn is_over(&self) -> bool {
        self.now() >= self.span.limit() || self.was_stopped()
    }

    /// Whether it was ended early.
    pub(super) fn was_stopped(&self) -> bool {
        self.span.was_stopped()
    }

    /// Whether it was ended before anything could be measured.
    fn came_to_nothing(&self) -> bool {
        self.span.stopped_at().is_some_and(|stopped| stopped <= self.span.start())
    }

    /// Ends it early.
    fn stop(&self) {
        self.span.stop(self.now());
        self.stopped.send_replace(true);
    }

    /// One that sends when it is due.
    pub(super) fn pace(&self) -> io::Result<Pace> {
        let timer = self.schedule.as_ref().map(|_| Timer::new()).transpose()?;
        Ok(Pace { run: self.clone(), timer })
    }

    /// Waits until another signal is another wish, if one has ended the run.
    async fn calm_down(&self) {
        if let Some(stopped) = self.span.stopped_at() {
            self.reach(stopped + ONE_SIGNAL).await;
        }
    }

    /// Returns when the run has come to `time`.
    pub(super) async fn reach(&self, time: Duration) {
        tokio::time::sleep(time.saturating_sub(self.now())).await;
    }

    /// Returns when somebody has ended it early.
    async fn stopped(&self) {
        // The sender lives as long as the run.
        drop(self.stopped.subscribe().wait_for(|it| *it).await);
    }

    /// Returns when its time is over, or somebody has ended it early.
    pub(super) async fn over(&self) {
        tokio::select! {
            () = self.reach(self.span.limit()) => {}
            () = self.stopped() => {}
        }
    }

    /// Does something as long as the run, and what has then to come, allow.
    pub(super) async fn unless_overdue<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let overdue = async {
            self.over().await;
            tokio::select! {
                () = tokio::time::sleep(self.answers_max) => {}
                () = async {
                    self.stopped().await;
                    tokio::time::sleep(GRACE).await;
                } => {}
            }
        };
        tokio::select! {
            biased;
            done = work => Some(done),
            () = overdue => None,
        }
    }

    /// Connects before the run is over. Who is stopped meanwhile needs no connection.
    pub(super) async fn connect(&self, link: &mut Link, who: &str) -> anyhow::Result<()> {
        tokio::select! {
            biased;
            connected = link.connect() => {
                let connected = connected.map(drop).map_err(Failure::from);
                connected.with_context(|| format!("{who} cannot connect"))
            }
            () = self.over() => match self.was_stopped() {
                true => Ok(()),
                false => bail!("{who} has no connection yet when the time is over"),
            },
        }
    }

    /// What was used while the run was measured. Ends with it, or when somebody interrupts it.
    async fn watch(&self) -> Costs {
        let mut before = self.sample();
        let measure = async {
            self.reach(self.span.start()).await;
            before = self.sample();
            self.reach(self.span.limit()).await;
        };
        tokio::select! {
            () = measure => {}
            () = self.stopped() => {}
        }
        Costs::between(before, self.sample())
    }

    /// Shows how much of its time is over, and how fast it goes.
    async fn show(&self, books: &Mutex<Vec<Shared>>) {
        let whole = self.span.limit().saturating_sub(self.begin);
        let mut progress = Progress::new(None);
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.now();
            let measured =
                now.min(self.span.limit()).saturating_sub(self.span.start()).as_secs_f64();
            let requests: u64 = books.lock().iter().map(|it| it.requests()).sum();
            progress
                .draw(|| of_time(now.saturating_sub(self.begin), whole, &rate(requests, measured)));
        }
    }

    fn sample(&self) -> (Duration, Option<usage::Usage>) {
        // A server that has ended is noticed by its clients.
        (usage::own_cpu(), self.server.and_then(|pid| usage::of(pid).ok()))
    }
}

/// Says when to send the next request.
pub(super) struct Pace {
    run: Run,
    timer: Option<Timer>,
}

impl Pace {
    /// Waits until the next request is to be sent. Its time counts from the time returned; `None`
    /// if the run is over.
    pub(super) async fn turn(&mut self) -> io::Result<Option<Duration>> {
        let now = self.run.now();
        if now >= self.run.span.limit() || self.run.was_stopped() {
            return Ok(None);
        }
        let (Some(schedule), Some(timer)) = (&self.run.schedule, &mut self.timer) else {
            return Ok(Some(now));
        };
        let due = schedule.due(schedule.next.fetch_add(1, Ordering::Relaxed));
        if due >= self.run.span.limit() {
            return Ok(None);
        }
        if let Some(wait) = due.checked_sub(now).filter(|wait| !wait.is_zero()) {
            timer.sleep(wait).await?;
        }
        Ok(Some(due))
    }
}

impl Schedule {
    fn due(&self, number: u64) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "no run has 2^53 requests")]
        let number = number as f64;
        self.begin + Duration::from_secs_f64(number / self.per_second)
    }
}

/// What the threads of a run came to.
pub(super) struct Outcome<T> {
    pub(super) books: Shared,
    pub(super) costs: Costs,
    /// What each connection came to, in no order.
    pub(super) results: Vec<T>,
}

/// Runs `connections` tasks, spread over `threads` threads; each gets its number and the books of
/// its thread.
///
/// # Errors
/// The first that a task failed with; [`Interrupted`] if somebody ended it while it warmed up.
pub(super) fn spread<T, F>(
    run: &Run,
    threads: usize,
    connections: usize,
    task: impl Fn(usize, Shared) -> F + Sync,
) -> anyhow::Result<Outcome<T>>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>> + Send + 'static,
{
    let threads = threads.min(connections).max(1);
    let all_books = Mutex::new(Vec::new());
    let done = workers::run("bench", threads, async |thread| {
        let books = Arc::new(Books::new(&run.span));
        all_books.lock().push(Arc::clone(&books));
        let mut tasks = JoinSet::new();
        for number in (thread..connections).step_by(threads) {
            tasks.spawn(task(number, Arc::clone(&books)));
        }
        let work = async {
            let mut results = Vec::new();
            while let Some(ended) = tasks.join_next().await {
                results.push(ended??);
            }
            anyhow::Ok(results)
        };
        let (results, costs) = match thread {
            0 => {
                let both = async {
                    let both = tokio::join!(work, run.watch());
                    // What is done next would take the rest of this signal for one of its own.
                    run.calm_down().await;
                    both
                };
                let (results, costs) = tokio::select! {
                    both = both => both,
                    () = asked_twice() => {
                        let requests: u64 = all_books.lock().iter().map(|it| it.requests()).sum();
                        eprintln!(
                            "weir: interrupted: streams called bench-… are left; {requests} requests \
                             were answered in the time measured so far, and nothing is verified"
                        );
                        std::process::exit(INTERRUPTED.into())
                    }
                    () = run.show(&all_books) => unreachable!("it has no end"),
                    () = heed(run) => unreachable!("it has no end"),
                };
                (results?, costs)
            }
            _ => (work.await?, Costs::default()),
        };
        anyhow::Ok(Outcome { books, costs, results })
    })?;
    let mut all: Option<Outcome<T>> = None;
    for one in done {
        let one = one?;
        match &mut all {
            None => all = Some(one),
            Some(all) => {
                all.books.add(&one.books);
                all.results.extend(one.results);
            }
        }
    }
    if run.came_to_nothing() {
        return Err(Interrupted.into());
    }
    Ok(all.expect("there is a thread"))
}

/// Ends a run early when somebody wants it.
async fn heed(run: &Run) {
    asked_to_end().await;
    run.stop();
    std::future::pending().await
}

/// How fast it goes so far. Before the time that is measured nothing is counted.
fn rate(requests: u64, seconds: f64) -> String {
    if seconds <= 0.0 {
        return "warming up".to_owned();
    }
    #[expect(clippy::cast_precision_loss, reason = "no run has 2^53 requests")]
    let each_second = requests as f64 / seconds;
    let digits = usize::from(each_second < 10.0);
    format!("{each_second:.digits$} requests/s")
}

/// Returns when somebody wants the process to end, by Ctrl-C or by `SIGTERM`.
pub(super) async fn asked_to_end() {
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => terminate.recv().await,
            // Without signals it just can't be interrupted.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        Ok(()) = tokio::signal::ctrl_c() => {}
        Some(()) = terminate => {}
        else => std::future::pending().await,
    }
}

/// Returns when somebody has no patience left.
async fn asked_twice() {
    asked_to_end().await;
    tokio::time::sleep(ONE_SIGNAL).await;
    asked_to_end().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rate: Option<f64>) -> Run {
        let length = Length { warm_up: Duration::ZERO, measured: Duration::from_millis(200) };
        Run::new(
            &Arc::new(OsClock::new()),
            std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into(),
            length,
            1,
            rate,
        )
    }

    #[test]
    fn an_open_loop_sends_as_many_as_are_due_however_late_it_is() {
        let run = run(Some(1_000.0));
        let outcome = spread(&run, 2, 4, |number, tally| {
            let run = run.clone();
            async move {
                let (mut pace, mut turns) = (run.pace()?, 0);
                while let Some(due) = pace.turn().await? {
                    // One of them stalls; the others and the next turns make up for it.
                    if number == 0 && turns == 3 {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    assert!(run.now() >= due, "never early");
                    tally.append.lock().done(run.now(), Duration::ZERO, 1, 1);
                    turns += 1;
                }
                Ok(turns)
            }
        });
        let outcome = outcome.expect("it runs");
        assert_eq!(outcome.results.iter().sum::<u64>(), 200);
        assert_eq!(outcome.results.len(), 4);
    }

    #[test]
    fn what_has_no_answer_is_given_up_when_the_time_is_over() {
        let mut run = run(None);
        run.answers_max = Duration::from_millis(20);
        let outcome = spread(&run, 1, 2, |number, _| {
            let run = run.clone();
            async move {
                let answer = async {
                    if number > 0 {
                        std::future::pending::<()>().await;
                    }
                };
                Ok(run.unless_overdue(answer).await.is_some())
            }
        });
        let mut answered = outcome.expect("it runs").results;
        answered.sort_unstable();
        assert_eq!(answered, [false, true]);
        assert!(!run.was_stopped());
    }

    #[test]
    fn what_is_shown_is_a_rate_once_something_counts() {
        assert_eq!(rate(0, 0.0), "warming up");
        assert_eq!(rate(12, 60.0), "0.2 requests/s");
        assert_eq!(rate(50_000, 2.0), "25000 requests/s");
    }

    #[test]
    fn a_closed_loop_has_no_schedule() {
        let run = run(None);
        let outcome = spread(&run, 1, 1, |_, _| {
            let run = run.clone();
            async move {
                let (mut pace, mut turns) = (run.pace()?, 0_u64);
                while let Some(start) = pace.turn().await? {
                    assert!(start <= run.now());
                    turns += 1;
                    tokio::task::yield_now().await;
                }
                Ok(turns)
            }
        });
        assert!(outcome.expect("it runs").results[0] > 200);
        assert!(run.is_over());
    }
}
