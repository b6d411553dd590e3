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
    let mut failed = false;
    for name in names {
        match work(name).await {
            Ok(line) => print(&format!("{line}\n"))?,
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
