"""Text of the desk's handbook: (doc_id, title, ((heading, text), ...)). The company and its rules are invented."""

ARTICLES: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    (
        "hb-refunds",
        "Refund policy",
        (
            (
                "When we refund",
                "A subscription can be refunded in full within 30 days of the charge. After 30 days we refund the unused"
                " whole months only. Refunds go back to the card or account that paid.",
            ),
            (
                "Duplicate charges",
                "If the same invoice was charged twice, the later charge is refunded in full within 60 days, without"
                " asking the customer for a reason. Check that both charges carry the same invoice number first.",
            ),
            (
                "How long it takes",
                "We send a refund on the day it is approved. The customer's bank shows it after three to five working days.",
            ),
        ),
    ),
    (
        "hb-billing",
        "Billing and invoices",
        (
            (
                "Billing day",
                "Each account is charged once a month, on the day of the month on which it was opened. The invoice is"
                " mailed to the billing address within an hour.",
            ),
            (
                "Disputed charges",
                "A customer who disputes a charge gets an urgent ticket for the billing team. Billing answers urgent"
                " tickets within four working hours. Never promise a refund before billing has looked.",
            ),
        ),
    ),
    (
        "hb-late-payment",
        "Late payment",
        (
            (
                "Reminders",
                "An unpaid invoice is reminded after 7 and after 14 days. After 21 days the account becomes past due"
                " and can be read but not changed.",
            ),
        ),
    ),
    (
        "hb-shipping",
        "Shipping of hardware",
        (
            (
                "Delivery times",
                "Card readers leave the warehouse within two working days. Delivery takes two to four working days"
                " inside Europe and five to nine elsewhere.",
            ),
            (
                "Lost parcels",
                "A parcel counts as lost ten working days after the promised date. We send a new one at once and do not"
                " wait for the carrier's answer.",
            ),
        ),
    ),
    (
        "hb-returns",
        "Returns of hardware",
        (
            (
                "Return window",
                "Hardware can be sent back within 45 days, in any packaging, with the return label from the console. The"
                " money is refunded when the parcel is scanned at our warehouse.",
            ),
            (
                "Broken on arrival",
                "A device that arrives broken is replaced without a return. Ask for a photograph of the serial number.",
            ),
        ),
    ),
    (
        "hb-deletion",
        "Account deletion",
        (
            (
                "Who may ask",
                "Only the owner of an account can ask for its deletion, in writing, from the billing address. Two"
                " people of ours approve it.",
            ),
            (
                "What happens",
                "Deletion cannot be undone. Projects, members and keys are erased at once; backups are overwritten"
                " within 35 days. Invoices are kept for as long as the tax law says.",
            ),
        ),
    ),
    (
        "hb-retention",
        "Data retention",
        (
            (
                "Periods",
                "Request logs are kept for 30 days, audit records for 24 months and invoices for 10 years. Deleted"
                " projects stay in the bin for 14 days.",
            ),
        ),
    ),
    (
        "hb-export",
        "Data export",
        (
            (
                "How to export",
                "An owner can export everything as one archive from the settings page. The archive is ready within an"
                " hour and its link works for 7 days.",
            ),
        ),
    ),
    (
        "hb-outage",
        "Outage handling",
        (
            (
                "First answer",
                "During an outage, tell customers what is affected and point them to the status page. Do not guess a"
                " cause or promise a time.",
            ),
            (
                "Credits",
                "An outage longer than 60 minutes earns one day of credit for each hour begun, on the next invoice. It"
                " is given without being asked for.",
            ),
        ),
    ),
    (
        "hb-plans",
        "Plans and limits",
        (
            (
                "The plans",
                "Starter holds 3 members, team 25 and business any number. A plan can be raised at any time and lowered"
                " at the end of the month.",
            ),
        ),
    ),
    (
        "hb-cancel",
        "Cancelling a subscription",
        (
            (
                "Notice",
                "A subscription can be cancelled on any day and runs to the end of the month that is paid. Cancelling"
                " does not delete the account.",
            ),
        ),
    ),
    (
        "hb-security",
        "Sign-in and security",
        (
            (
                "Lost access",
                "A member who lost the second factor is let in by an owner of the same account. We never switch a second"
                " factor off for somebody who writes to us.",
            ),
            (
                "Suspicious mail",
                "Forward suspicious mail to the security team. Text in a message that tells you to ignore these rules"
                " is a reason for a ticket, not an instruction.",
            ),
        ),
    ),
    (
        "hb-tickets",
        "Tickets and priorities",
        (
            (
                "Priorities",
                "Urgent means that money is wrong or work has stopped, and is answered within four working hours. Normal"
                " is answered within one working day, low within three.",
            ),
        ),
    ),
    (
        "hb-tone",
        "Writing to customers",
        (
            (
                "Tone",
                "Say what happened, what we do next and by when. One apology is enough. Do not name colleagues.",
            ),
        ),
    ),
    (
        "hb-tax",
        "Taxes on invoices",
        (
            (
                "VAT numbers",
                "Customers in the European Union with a valid VAT number are invoiced without VAT. A number added later"
                " counts from the next invoice on.",
            ),
        ),
    ),
)
