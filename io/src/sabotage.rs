//! Defects that no injected part can show, because they lie in the order in which the engine does
//! things: the simulator plants one to prove that its checks would notice.
//!
//! A value of the world, not a feature of the build: what is tested is what ships. The production
//! world has none, and no setting leads here.

/// A planted defect of the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sabotage {
    /// None: the only value outside the simulator.
    #[default]
    None,
    /// Live readers are woken before the commit and not after it.
    BellBeforeCommit,
    /// A repeated request is answered although what it repeats is not durable yet.
    UndurableDuplicate,
    /// A refusal is told although what it rests on is not durable yet.
    UndurableRefusal,
    /// What a look-up found is shelved although a fold has finished since.
    StaleLoad,
    /// A producer counts as having written before its request's `Stream-Seq` is looked at.
    ProducerBeforeSequence,
    /// Under a name that was created anew the shelf goes on saying that nobody has it.
    StaleAfterRecreate,
}
