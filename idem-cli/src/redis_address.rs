//! Reads the address of a Redis cluster, or of the Sentinels of a Redis primary.
//!
//! No message repeats a part of the address, because it may contain a password.

use std::fmt::Write as _;

use axum_idem::store::RedisStoreBuilder;

use crate::failure::Failure;

/// The addresses of the nodes in `USER:PASSWORD@HOST,HOST`. The store uses the user and the password of the first node for
/// all nodes.
pub(crate) fn cluster(scheme: &str, rest: &str) -> Result<Vec<String>, Failure> {
    let hosts = rest.trim_end_matches('/');
    if hosts.contains(['/', '?']) {
        return Err(wrong(
            "a cluster has only database 0; write `redis+cluster://USER:PASSWORD@HOST:PORT,HOST:PORT`",
        ));
    }
    let hosts = hosts.split(',').map(|host| format!("{scheme}://{host}/"));
    Ok(hosts.collect())
}

/// The Sentinels, and how to sign in to the primary that they name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sentinel {
    sentinels: Vec<String>,
    service: String,
    username: Option<String>,
    password: Option<String>,
    database: Option<i64>,
}

impl Sentinel {
    /// Reads `USER:PASSWORD@HOST,HOST/SERVICE?db=NUMBER&sentinel_user=USER&sentinel_password=PASSWORD`.
    pub(crate) fn parse(scheme: &str, rest: &str) -> Result<Self, Failure> {
        const FORM: &str =
            "write `redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/SERVICE?db=NUMBER`";
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, service) = rest.split_once('/').ok_or_else(|| wrong(FORM))?;
        let (user_info, hosts) = match hosts.split_once('@') {
            Some((user_info, hosts)) => (Some(user_info), hosts),
            None => (None, hosts),
        };
        if service.is_empty() || service.contains('/') {
            return Err(wrong(FORM));
        }
        if hosts.contains('@') {
            return Err(wrong(
                "write the user and the password of the primary once, before the first host; `sentinel_user` and \
                 `sentinel_password` are for the Sentinels",
            ));
        }
        let mut parsed = Self {
            service: decoded(service)?,
            ..Self::default()
        };
        if let Some(user_info) = user_info {
            let (username, password) = user_info.split_once(':').ok_or_else(|| {
                wrong("write a user and a password as `USER:PASSWORD@`, or a password as `:PASSWORD@`")
            })?;
            parsed.username = Some(decoded(username)?).filter(|name| !name.is_empty());
            parsed.password = Some(decoded(password)?);
        }
        let (mut sentinel_user, mut sentinel_password) = (String::new(), None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "db" => {
                    let number: u32 = value
                        .parse()
                        .map_err(|_| wrong("`db` is the number of a database"))?;
                    parsed.database = Some(number.into());
                }
                "sentinel_user" => sentinel_user = decoded(value)?,
                "sentinel_password" => sentinel_password = Some(decoded(value)?),
                _ => {
                    return Err(wrong(
                        "the parameters are `db`, `sentinel_user` and `sentinel_password`",
                    ));
                }
            }
        }
        let sign_in = match sentinel_password {
            Some(password) => format!("{}:{}@", encoded(&sentinel_user), encoded(&password)),
            None if sentinel_user.is_empty() => String::new(),
            None => return Err(wrong("`sentinel_user` needs `sentinel_password`")),
        };
        let hosts = hosts.split(',');
        parsed.sentinels = hosts
            .map(|host| format!("{scheme}://{sign_in}{host}/"))
            .collect();
        Ok(parsed)
    }

    pub(crate) fn into_builder(self, mut builder: RedisStoreBuilder) -> RedisStoreBuilder {
        builder = builder.sentinel(self.service, self.sentinels);
        if let Some(username) = self.username {
            builder = builder.username(username);
        }
        if let Some(password) = self.password {
            builder = builder.password(password);
        }
        if let Some(number) = self.database {
            builder = builder.database(number);
        }
        builder
    }
}

fn wrong(what: &str) -> Failure {
    Failure::Usage(format!("the address of the store is wrong: {what}"))
}

/// Decodes `%2F` and the like.
fn decoded(text: &str) -> Result<String, Failure> {
    let not_encoded = || {
        wrong(
            "a `%` in a user, a password or a service begins two hexadecimal digits, such as `%25`",
        )
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend(parts.next().unwrap_or_default().bytes());
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).ok_or_else(not_encoded)?;
        // `from_str_radix` accepts a sign.
        let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let byte = u8::from_str_radix(digits, 16).ok().filter(|_| is_hex);
        bytes.push(byte.ok_or_else(not_encoded)?);
        bytes.extend(rest.bytes());
    }
    String::from_utf8(bytes).map_err(|_| wrong("a user, a password or a service is not UTF-8"))
}

/// Encodes a text for the user information of an address.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            // A string takes everything.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_sentinels_names_the_primary_its_user_and_its_database() {
        let parse = |rest| Sentinel::parse("redis", rest).expect("an address");
        let plain = parse("10.0.0.1:26379,[::1]:26379/trades");
        assert_eq!(
            plain.sentinels,
            ["redis://10.0.0.1:26379/", "redis://[::1]:26379/"]
        );
        assert_eq!((&plain.service[..], plain.database), ("trades", None));
        assert_eq!((&plain.username, &plain.password), (&None, &None));

        let full = Sentinel::parse(
            "rediss",
            "desk:a%40b%2F@a,b/trades?db=3&sentinel_user=watch&sentinel_password=p%3A%40",
        );
        let full = full.expect("an address");
        assert_eq!(
            full,
            Sentinel {
                sentinels: vec![
                    "rediss://watch:p%3A%40@a/".to_owned(),
                    "rediss://watch:p%3A%40@b/".to_owned(),
                ],
                service: "trades".to_owned(),
                username: Some("desk".to_owned()),
                password: Some("a@b/".to_owned()),
                database: Some(3),
            }
        );
        let password = parse(":secret@a/trades?sentinel_password=x");
        assert_eq!(password.sentinels, ["redis://:x@a/"]);
        assert_eq!(password.username, None);
        assert_eq!(password.password.as_deref(), Some("secret"));
    }

    #[test]
    fn a_wrong_address_is_refused_without_its_password() {
        for rest in [
            "a",
            "a/",
            "a/trades/3",
            "SECRET@a/trades",
            "desk:SECRET@a,desk:SECRET@b/trades",
            "desk:SECRET%@a/trades",
            "desk:SECRET%+1@a/trades",
            "desk:SECRET%ff@a/trades",
            "a/trades?db=",
            "a/trades?db=-1",
            "a/trades?sentinel_user=x",
            "a/trades?database=3",
        ] {
            let refused = Sentinel::parse("redis", rest).expect_err(rest);
            let message = refused.message().expect("a message");
            assert!(!message.contains("SECRET"), "{rest}: {message}");
        }
    }

    #[test]
    fn a_cluster_has_no_other_database() {
        assert_eq!(
            cluster("rediss", "u:p@a:1,b:2/").expect("an address"),
            ["rediss://u:p@a:1/", "rediss://b:2/"]
        );
        for rest in ["a,b/3", "a,b?db=3"] {
            assert!(cluster("redis", rest).is_err(), "{rest}");
        }
    }
}
