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
    /// What is looked up of a stream says that it is open.
    ClosedForgotten,
    /// Reads by key do not look at the first record that they come to in a block.
    KeyOverlooked,
    /// A search by time ends one record late.
    SinceTooLate,
    /// A list leaves out its second row, if it comes from the catalogue.
    RowUnlisted,
    /// Requests are answered a moment before what they did can be seen.
    ToldBeforeVisible,
    /// An append that its `Stream-Seq` refuses is written all the same.
    RefusedIsWritten,
    /// Readers see what is written before it is durable; writers are told after it.
    VisibleBeforeDurable,
    /// A seal passes over the second of a stream's runs of records.
    SealPassesOver,
    /// Forks draw on one record more than they were asked to.
    PointsTooHigh,
    /// Reads begin one record after where they were asked to.
    ReadsSkip,
    /// A recovery does not look at the newest ledger's rows.
    LedgerSkipped,
    /// A recovery goes on in the era before.
    OldEra,
    /// A recovery does not claim the bucket.
    NotClaimed,
    /// A recovery sets the old store aside before the new one is made.
    AsideTooEarly,
}
