//! What requests cost, by the clouds' list prices.
//!
//! US dollars for a million requests in the standard class of storage and the cheapest large
//! region, without free allowances, discounts, taxes, stored bytes and bytes that leave the
//! cloud. An estimate to see what a setting costs, not a bill.
//!
//! | kind | class A: create, list | class B: get, head | delete |
//! |---|---|---|---|
//! | `s3` | 5.00 | 0.40 | 0 |
//! | `r2` | 4.50 | 0.36 | 0 |
//! | `gcs` | 5.00 | 0.40 | 0 |
//! | `azure` | 5.00 | 0.40 | 0 |
//! | `local`, `memory` | 0 | 0 | 0 |

use std::collections::BTreeMap;

use weir_io::objects::{Recent, Verb};

use crate::cli::store::StoreKind;

const HOUR_MS: u128 = 3_600_000;

/// How a request is billed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// It changes or lists.
    A,
    /// It reads.
    B,
    Free,
}

impl Class {
    pub(crate) const fn of(verb: Verb) -> Self {
        match verb {
            Verb::Create | Verb::List => Self::A,
            Verb::Get | Verb::GetRange | Verb::Head => Self::B,
            Verb::Delete => Self::Free,
        }
    }
}

/// Requests of a stretch of time by class.
pub(crate) fn by_class(recent: &Recent) -> BTreeMap<Class, u64> {
    let mut classes = BTreeMap::new();
    for (verb, requests) in &recent.requests {
        *classes.entry(Class::of(*verb)).or_default() += requests;
    }
    classes
}

/// US dollars per hour if it goes on as it did of late; at most some 4,294.
pub(crate) fn dollars_per_hour(kind: StoreKind, recent: &Recent) -> f64 {
    let spent: u64 = by_class(recent)
        .iter()
        .map(|(class, requests)| requests.saturating_mul(nanodollars(kind, *class)))
        .fold(0, u64::saturating_add);
    let micros = u128::from(spent) * HOUR_MS / recent.window.as_millis().max(1) / 1000;
    f64::from(u32::try_from(micros).unwrap_or(u32::MAX)) / 1e6
}

/// Billionths of a dollar for one request.
const fn nanodollars(kind: StoreKind, class: Class) -> u64 {
    match (kind, class) {
        (StoreKind::Local | StoreKind::Memory, _) | (_, Class::Free) => 0,
        (StoreKind::R2, Class::A) => 4500,
        (StoreKind::R2, Class::B) => 360,
        (StoreKind::S3 | StoreKind::Gcs | StoreKind::Azure, Class::A) => 5000,
        (StoreKind::S3 | StoreKind::Gcs | StoreKind::Azure, Class::B) => 400,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn recent(minutes: u64, requests: &[(Verb, u64)]) -> Recent {
        let window = Duration::from_secs(minutes * 60);
        Recent { window, requests: requests.iter().copied().collect() }
    }

    #[test]
    fn a_million_requests_in_an_hour_cost_what_the_list_says() {
        for (kind, class_a, class_b) in [
            (StoreKind::S3, 5.0, 0.4),
            (StoreKind::R2, 4.5, 0.36),
            (StoreKind::Gcs, 5.0, 0.4),
            (StoreKind::Azure, 5.0, 0.4),
            (StoreKind::Local, 0.0, 0.0),
            (StoreKind::Memory, 0.0, 0.0),
        ] {
            for verb in Verb::ALL {
                let expect = match verb {
                    Verb::Create | Verb::List => class_a,
                    Verb::Get | Verb::GetRange | Verb::Head => class_b,
                    Verb::Delete => 0.0,
                };
                let dollars = dollars_per_hour(kind, &recent(60, &[(verb, 1_000_000)]));
                assert!((dollars - expect).abs() < 1e-6, "{kind:?} {verb:?}: {dollars}");
            }
        }
    }

    #[test]
    fn a_shorter_stretch_goes_on_for_the_hour() {
        let requests = [(Verb::Create, 60), (Verb::GetRange, 150), (Verb::Head, 150)];
        let dollars = dollars_per_hour(StoreKind::S3, &recent(5, &requests));
        // In five minutes 60 × 5,000 and 300 × 400 billionths: 0.00042 dollars, twelve times.
        assert!((dollars - 0.00504).abs() < 1e-9, "{dollars}");
        let idle = dollars_per_hour(StoreKind::S3, &recent(60, &[]));
        assert!(idle.abs() < f64::EPSILON, "{idle}");
        let absurd = dollars_per_hour(StoreKind::S3, &recent(60, &[(Verb::List, u64::MAX)]));
        assert!(absurd > 4000.0, "{absurd}");
    }
}
