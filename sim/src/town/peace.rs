//! The town in peace: somebody new reads everything over HTTP beside readers who take a few bytes a
//! second, whatever is to be woken is, and nothing pending is left.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use rand_chacha::ChaCha8Rng;
use tokio::time::{sleep, timeout};

use super::{server::Post, wire};
use crate::{
    checks::{self, Breach},
    door::Door,
    require,
    run::{boot, drain},
    workload::{self, Class, subscribers::kinds, verbs::Said},
    world::{Host, Sim},
};

/// How long a small request may take in peace, the way there and back included, whoever else takes
/// however long: several round trips on the slowest link.
const PROMPT_MAX: Duration = Duration::from_secs(3);
/// Requests that must be prompt.
const PROMPTS: u32 = 8;
/// How long webhooks may take until nothing is pending: the longest wait after failures, and then
/// each stream's work once.
const CALLED_MAX: Duration = Duration::from_secs(150);
/// How often it is looked whether something is pending.
const LOOK: Duration = Duration::from_millis(500);
/// What the server may have ready for one connection beside a page: heads, a batch of events with
/// the growth of their encoding, and the records that stand over.
const BESIDE_BYTES_MAX: usize = 512 << 10;

/// How long after a seal of the seed's age what is beyond its limits may be there.
const TRIMMED_MAX: Duration = Duration::from_secs(5);
/// How much later if what is to be looked at could not be read, here or in the bucket: then the store
/// waits a minute.
const PUT_OFF: Duration = Duration::from_secs(65);
/// Seal ages that are waited for; the store by itself is looked at with longer ones.
const SEAL_AGE_MAX: Duration = Duration::from_secs(2);

/// A client that nobody disturbs.
pub fn host(sim: &Rc<Sim>, post: &Rc<Post>) -> Host {
    Host {
        sim: Rc::clone(sim),
        door: Door::Outside(post.client(wire::dial(post, sim.chance(902)))),
        store: None,
        stop: Cell::new(false),
        leave: Cell::new(false),
        watching: RefCell::default(),
        skew_ms: 0,
    }
}

/// Looks at everything.
pub async fn judge(host: Rc<Host>, post: Rc<Post>, read_bytes_max: usize, mut c: ChaCha8Rng) {
    let prompt = is_prompt(&host, &post).await;
    host.sim.check(prompt);
    boot::verify_all(&host, &mut c).await;
    post.sipping.set(false);
    let held = post.lines.offered_max();
    host.sim.note(&format!("at most {held} bytes were ready for one connection"));
    let most = read_bytes_max + BESIDE_BYTES_MAX;
    if held > most {
        let what = format!("{held} bytes were ready for one connection, at most {most}");
        host.sim.check::<()>(Breach::of(checks::BOUNDED, what));
    }
    let woken = woken(&host).await;
    host.sim.check(woken);
    let trimmed = trimmed(&host).await;
    host.sim.check(trimmed);
}

/// What is beyond limits has gone.
async fn trimmed(host: &Host) -> Result<(), Breach> {
    let age = host.sim.options.seal_age;
    if age > SEAL_AGE_MAX {
        return Ok(());
    }
    let options = &host.sim.options;
    let unreadable = options.keeps_readers_waiting() || options.read_fails;
    let put_off = if unreadable { PUT_OFF } else { Duration::ZERO };
    let late = age + TRIMMED_MAX + put_off;
    sleep(late).await;
    host.sim.note("what streams keep is looked at from another machine");
    let late_ms = u64::try_from(late.as_millis()).expect("short");
    host.are_trimmed(late_ms).await
}

/// Small requests are answered at once, whoever else reads however slowly.
async fn is_prompt(host: &Host, post: &Post) -> Result<(), Breach> {
    let stable = workload::targets().into_iter().find(|it| it.class == Class::Stable);
    let target = stable.expect("there are some");
    for _ in 0..PROMPTS {
        let said = timeout(PROMPT_MAX, host.head(&target)).await;
        // It may never have been made.
        let prompt = matches!(said, Ok(Said::Yes(_) | Said::No(_)));
        require!(
            prompt,
            checks::SERVES,
            "beside {} slow readers HEAD takes more than {PROMPT_MAX:?}: {said:?}",
            post.sipped.get()
        );
        if post.sipped.get() > 0 {
            weir_io::sometimes!("others were served beside a slow reader");
        }
    }
    Ok(())
}

/// What is pending wakes somebody by itself and ends.
async fn woken(host: &Host) -> Result<(), Breach> {
    for kind in kinds().iter().filter(|kind| kind.is_pull) {
        drain::pull(host, kind).await?;
    }
    let hooks: Vec<_> = kinds().into_iter().filter(|kind| !kind.is_pull).collect();
    let mut waited = Duration::ZERO;
    let mut left = Some(String::new());
    while let Some(before) = left.take() {
        require!(waited < CALLED_MAX, checks::WOKEN, "after {CALLED_MAX:?} of peace {before}");
        for kind in &hooks {
            if !host.sim.model.borrow().has(&kind.id) {
                continue;
            }
            let view = host.view(kind).await;
            match view {
                Some(view) if view.links.pending == 0 => {}
                Some(view) => left = Some(format!("'{}' is not done: {view:?}", kind.id)),
                None => left = Some(format!("'{}' does not show itself", kind.id)),
            }
        }
        if left.is_some() {
            sleep(LOOK).await;
            waited += LOOK;
        }
    }
    Ok(())
}
