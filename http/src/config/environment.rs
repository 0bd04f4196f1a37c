//! The environment of the process, read once.

use std::collections::BTreeMap;

/// Environment variables by name. Blank ones are as good as none. Never shown: some are secrets.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// That of the process. Variables that are no UTF-8 are for other programs.
    #[must_use]
    pub fn of_process() -> Self {
        let text = |it: std::ffi::OsString| it.into_string().ok();
        std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect()
    }

    /// The value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The variables whose names begin with one of `prefixes`.
    #[must_use]
    pub fn below(&self, prefixes: &[&str]) -> BTreeMap<String, String> {
        let wanted = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
        let found = self.0.iter().filter(|(name, _)| wanted(name));
        found.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self(variables.into_iter().filter(|(_, value)| !value.trim().is_empty()).collect())
    }
}
