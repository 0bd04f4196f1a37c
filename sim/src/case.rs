//! What exactly is simulated: a seed, what clients talk to, a planted defect, and the choices of
//! the seed that are overruled. A case is one line of words, so that it can be kept in a file, sent
//! to somebody, and run again.

use std::{fmt, str::FromStr};

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use crate::{faults::Options, run::Over, sabotage::Sabotage};

/// A simulation that can be run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    pub seed: u64,
    pub over: Over,
    pub sabotage: Sabotage,
    /// Choices that are not the seed's: name and value.
    pub set: Vec<(String, String)>,
}

impl Case {
    /// A seed as it is.
    #[must_use]
    pub fn new(seed: u64, over: Over, sabotage: Sabotage) -> Self {
        Self { seed, over, sabotage, set: Vec::new() }
    }

    /// The same with one more choice overruled.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut case = self.clone();
        case.set.retain(|(known, _)| known != name);
        case.set.push((name.to_owned(), value.to_owned()));
        case
    }

    /// The choices.
    ///
    /// # Errors
    /// One that is overruled does not exist or can't have that value.
    pub fn options(&self) -> anyhow::Result<Options> {
        let mut options = Options::draw(self.seed);
        match self.sabotage {
            Sabotage::None => {}
            // A defect of the bucket shows where there is one, and others are looked for as before.
            defect => options.bucket.there = defect.is_of_bucket(),
        }
        for (name, value) in &self.set {
            options.set(name, value)?;
        }
        Ok(options)
    }

    /// The command that runs it.
    #[must_use]
    pub fn command(&self) -> String {
        format!("cargo run -p sim -- run {self}")
    }
}

fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |it| it.get_name().to_owned())
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--seed {}", self.seed)?;
        if self.over != Over::default() {
            write!(f, " --over {}", name(&self.over))?;
        }
        if self.sabotage != Sabotage::None {
            write!(f, " --sabotage {}", name(&self.sabotage))?;
        }
        for (name, value) in &self.set {
            write!(f, " --set {name}={value}")?;
        }
        Ok(())
    }
}

impl FromStr for Case {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut case = Self::new(0, Over::default(), Sabotage::None);
        let mut words = text.split_whitespace();
        let mut seed = None;
        while let Some(word) = words.next() {
            let value = words.next().with_context(|| format!("{word} has no value"))?;
            let known = |what: &str| anyhow::anyhow!("there is no {what} '{value}'");
            match word {
                "--seed" => seed = Some(value.parse().context("the seed is a number")?),
                "--over" => case.over = Over::from_str(value, false).map_err(|_| known("way"))?,
                "--sabotage" => {
                    case.sabotage =
                        Sabotage::from_str(value, false).map_err(|_| known("defect"))?;
                }
                "--set" => {
                    let (name, value) = value.split_once('=').context("--set wants NAME=VALUE")?;
                    case = case.with(name, value);
                }
                other => bail!("a case does not have '{other}'"),
            }
        }
        case.seed = seed.context("a case has a seed")?;
        case.options()?;
        Ok(case)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_read_as_it_was_written() {
        let case = Case::new(7, Over::Http, Sabotage::EpochsLost)
            .with("rounds", "1")
            .with("disk_full", "false")
            .with("rounds", "2");
        let text = case.to_string();
        assert_eq!(
            text,
            "--seed 7 --over http --sabotage epochs-lost --set disk_full=false --set rounds=2"
        );
        assert_eq!(text.parse::<Case>().expect("well written"), case);
        assert_eq!(case.options().expect("known").rounds, 2);
        for bad in ["", "--seed", "--seed x", "--seed 1 --set a=1", "--seed 1 --set rounds=x"] {
            assert!(bad.parse::<Case>().is_err(), "{bad}");
        }
    }
}
