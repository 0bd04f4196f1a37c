//! Two local servers inside a program of your own.
//!
//! ```text
//! cargo run -p weir-http --example embedded
//! ```
//! Their data lies below `DS_LOCAL_DATA_ROOT`, or else with the user's, and is there again when
//! the program runs the next time.

use weir_http::local::{self, LocalConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let app = local::start(LocalConfig::new("my-app")?).await?;
    let tests = local::start(LocalConfig::new("my-app-tests")?).await?;
    for server in [&app, &tests] {
        println!("{} on {} in {}", server.name, server.url, server.sqlite_path.display());
    }
    println!("try: curl -X PUT -H 'content-type: text/plain' -d hello {}/v1/stream/s", app.url);
    println!("     curl {}/v1/stream/s", app.url);
    println!("end it with Ctrl-C");
    tokio::signal::ctrl_c().await?;
    tests.close().await?;
    app.close().await?;
    Ok(())
}
