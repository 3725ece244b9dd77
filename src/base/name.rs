use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A job's number in the order of arrival, shown as `j1`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "j{}", self.0)
    }
}

impl FromStr for JobId {
    type Err = BadName;
    fn from_str(text: &str) -> Result<JobId, BadName> {
        let digits = text.strip_prefix('j').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
        digits.and_then(|digits| digits.parse().ok()).map(JobId).ok_or_else(|| BadName(text.into()))
    }
}

impl TryFrom<String> for JobId {
    type Error = BadName;
    fn try_from(text: String) -> Result<JobId, BadName> {
        text.parse()
    }
}

impl From<JobId> for String {
    fn from(job: JobId) -> String {
        job.to_string()
    }
}

/// A name that somebody gave to a job: 1 to 63 of `A-Z a-z 0-9 _ . -`, the first a letter or digit, and
/// neither of the form of a [`JobId`] nor `main`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Name, BadName> {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        let good = (1..=63).contains(&text.len())
            && text.bytes().all(inner)
            && text.as_bytes()[0].is_ascii_alphanumeric()
            && text.parse::<Subject>().is_err();
        if good { Ok(Name(text.into())) } else { Err(BadName(text.into())) }
    }
}

impl TryFrom<String> for Name {
    type Error = BadName;
    fn try_from(text: String) -> Result<Name, BadName> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whose end a record is about: main's, or a job's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Subject {
    /// The command that the init was started with.
    Main,
    /// A job.
    Job(JobId),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Subject::Main => f.write_str("main"),
            Subject::Job(id) => id.fmt(f),
        }
    }
}

impl FromStr for Subject {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Subject, BadName> {
        if text == "main" { Ok(Subject::Main) } else { text.parse().map(Subject::Job) }
    }
}

impl TryFrom<String> for Subject {
    type Error = BadName;
    fn try_from(text: String) -> Result<Subject, BadName> {
        text.parse()
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> String {
        subject.to_string()
    }
}

/// How a person points at a job: by its number or its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JobRef {
    /// `j12`
    Id(JobId),
    /// What `--name` gave.
    Name(Name),
}

impl FromStr for JobRef {
    type Err = BadName;
    fn from_str(text: &str) -> Result<JobRef, BadName> {
        text.parse().map(JobRef::Id).or_else(|_| text.parse().map(JobRef::Name))
    }
}

impl fmt::Display for JobRef {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            JobRef::Id(id) => id.fmt(f),
            JobRef::Name(name) => name.fmt(f),
        }
    }
}

/// The name of a request's directory: 128 random bits as 32 lowercase hexadecimal digits, so that no two
/// clients, in whatever namespaces, choose the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u128);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for RequestId {
    type Err = BadName;
    fn from_str(text: &str) -> Result<RequestId, BadName> {
        let good = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let number = if good { u128::from_str_radix(text, 16).ok() } else { None };
        number.map(RequestId).ok_or_else(|| BadName(text.into()))
    }
}

/// A text that is not a name of the kind that was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadName(pub String);

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "'{}' is not a name: use 1 to 63 of A-Z a-z 0-9 _ . - and begin with a letter or digit (j1, j2, ... are job numbers, main is main)",
            self.0.escape_default()
        )
    }
}

impl std::error::Error for BadName {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_be_a_path_or_a_number_of_a_job() {
        for good in ["a", "wsclean", "A.b-c_9", "j", "job1", "0", &"x".repeat(63)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "j1", "main", ".", "..", "-x", "a/b", "a b", "ä", "a\n", &"x".repeat(64)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_request_id_is_32_hexadecimal_digits() {
        let id = RequestId(0xab);
        assert_eq!(id.to_string(), "000000000000000000000000000000ab");
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "../../etc", "AB".repeat(16).as_str(), "0".repeat(33).as_str(), "+0".repeat(16).as_str()] {
            assert!(bad.parse::<RequestId>().is_err(), "{bad}");
        }
    }
}
