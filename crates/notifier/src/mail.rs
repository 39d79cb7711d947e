//! Messages by e-mail.

use crate::{
    PATIENCE,
    addresses::{Reach, allows},
    failed,
};
use domain::{
    ids::DeliveryId,
    observability::alerts::{Fate, MailTls, Message, Sent, TargetSecret, TargetSpec},
};
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message as Mail, Tokio1Executor,
    message::header::ContentType,
    transport::smtp::{
        authentication::Credentials,
        client::{Tls, TlsParameters},
        extension::ClientId,
    },
};

/// Hands a message to a mail server. It is connected to at an address that was looked at before, and has to prove that it
/// is who it was named.
pub(crate) async fn send(
    spec: &TargetSpec,
    secret: &TargetSecret,
    reach: Reach,
    id: DeliveryId,
    message: &Message,
) -> Sent {
    let TargetSpec::Email { host, port, tls, user, from, to } = spec else {
        return failed(Fate::Never, None, "it is no e-mail target");
    };
    let mail = match mail(from, to, id, message) {
        Ok(mail) => mail,
        Err(_unreadable) => return failed(Fate::Never, None, "one of its addresses cannot be read"),
    };
    let found = match tokio::net::lookup_host((host.as_str(), *port)).await {
        Ok(mut found) => found.find(|address| allows(reach, address.ip())),
        Err(_unknown) => return failed(Fate::Again(None), None, "the name of its mail server is not known"),
    };
    let Some(address) = found else {
        return failed(Fate::Never, None, "its mail server is at no address that messages may go to");
    };
    let tls = match tls {
        MailTls::None => Ok(Tls::None),
        MailTls::Tls => TlsParameters::new(host.clone()).map(Tls::Wrapper),
        MailTls::StartTls => TlsParameters::new(host.clone()).map(Tls::Required),
    };
    let Ok(tls) = tls else { return failed(Fate::Never, None, "TLS cannot be used with its mail server") };
    let mut server = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(address.ip().to_string())
        .port(*port)
        .tls(tls)
        .hello_name(ClientId::Domain("starlink".to_owned()))
        .timeout(Some(PATIENCE / 2));
    if let (Some(user), Some(password)) = (user, &secret.password) {
        server = server.credentials(Credentials::new(user.clone(), password.clone()));
    }
    match server.build().send(mail).await {
        Ok(answer) => Sent { fate: Fate::Delivered, status: Some(u16::from(answer.code())), error: None },
        Err(error) => {
            let status = error.status().map(u16::from);
            let fate = if error.is_permanent() { Fate::Never } else { Fate::Again(None) };
            let why =
                if error.is_permanent() { "its mail server refused it" } else { "its mail server did not take it" };
            failed(fate, status, why)
        }
    }
}

fn mail(from: &str, to: &[String], id: DeliveryId, message: &Message) -> Result<Mail, Box<dyn std::error::Error>> {
    let from: lettre::message::Mailbox = from.parse()?;
    // The same for each try, so that who gets it twice can see that.
    let domain = from.email.domain().to_owned();
    let mut mail = Mail::builder()
        .from(from)
        .message_id(Some(format!("<starlink-{id}@{domain}>")))
        .subject(message.headline())
        .header(ContentType::TEXT_PLAIN);
    for one in to {
        mail = mail.to(one.parse()?);
    }
    Ok(mail.body(message.text())?)
}
