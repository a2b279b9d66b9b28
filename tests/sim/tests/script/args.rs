//! The arguments of a script's command.

use super::Failure;
use goldenscript::Command;
use kvservice_shared::ids::ConnId;
use std::error::Error;
use std::str::FromStr;

/// The arguments of one command.
pub struct Args<'a> {
    positional: std::vec::IntoIter<&'a str>,
    named: Vec<(&'a str, &'a str)>,
}

impl<'a> Args<'a> {
    pub fn of(command: &'a Command) -> Args<'a> {
        let mut positional = Vec::new();
        let mut named = Vec::new();
        for argument in &command.args {
            match argument {
                goldenscript::Argument::Positional(value) => positional.push(value.as_str()),
                goldenscript::Argument::KeyValue(key, value) => {
                    named.push((key.as_str(), value.as_str()))
                }
                _ => {}
            }
        }
        Args {
            positional: positional.into_iter(),
            named,
        }
    }

    /// The next, if there is one.
    pub fn optional(&mut self) -> Option<&'a str> {
        self.positional.next()
    }

    pub fn next(&mut self) -> Result<&'a str, Failure> {
        self.positional
            .next()
            .ok_or_else(|| "an argument is missing".into())
    }

    pub fn parse<T: FromStr<Err: Error + 'static>>(&mut self) -> Result<T, Failure> {
        Ok(self.next()?.parse::<T>()?)
    }

    pub fn named<T: FromStr<Err: Error + 'static>>(
        &mut self,
        name: &str,
    ) -> Result<Option<T>, Failure> {
        let Some(at) = self.named.iter().position(|(key, _)| *key == name) else {
            return Ok(None);
        };
        Ok(Some(self.named.remove(at).1.parse::<T>()?))
    }

    pub fn conn(&mut self) -> Result<ConnId, Failure> {
        let name = self.next()?;
        let number = name.strip_prefix('c').ok_or("clients are c1, c2, …")?;
        Ok(ConnId(number.parse()?))
    }

    pub fn end(mut self) -> Result<(), Failure> {
        let named = self.named.first().map(|(key, _)| *key);
        match self.positional.next().or(named) {
            None => Ok(()),
            Some(extra) => Err(format!("what is {extra}?").into()),
        }
    }
}
