//! The same for several objects: one that fails is reported and the others are still done.

use crate::error::CliError;

use super::{print, show};

/// Does `work` for each name and prints what it returns.
///
/// # Errors
/// [`CliError::Reported`] when one failed.
pub async fn each<F>(names: Vec<String>, work: impl Fn(String) -> F) -> Result<(), CliError>
where
    F: Future<Output = Result<String, CliError>>,
{
    each_shown(names, |name| {
        let done = work(name);
        async { done.await.map(Some) }
    })
    .await
}

/// The same, where some have nothing to print.
///
/// # Errors
/// [`CliError::Reported`] when one failed.
pub async fn each_shown<F>(names: Vec<String>, work: impl Fn(String) -> F) -> Result<(), CliError>
where
    F: Future<Output = Result<Option<String>, CliError>>,
{
    let mut failed = false;
    for name in names {
        match work(name).await {
            Ok(Some(line)) => print(&format!("{line}\n"))?,
            Ok(None) => {}
            Err(error) => {
                show(&error);
                failed = true;
            }
        }
    }
    if failed {
        Err(CliError::Reported)
    } else {
        Ok(())
    }
}
