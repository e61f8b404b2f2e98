"""Where each TAU2 domain lies in the `inspect-evals` package, and which of its tools change something.

Data alone: adding a domain is adding a row. Invariant: a tool that is not listed as a write never changes the state; a
test calls them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from muarl_cli.conversation.events import ToolClass


@dataclass(frozen=True)
class Side:
    """One party's tools: below `inspect_evals.tau2`, as "module:name"."""

    toolkit: str
    """the class whose methods execute the calls"""
    database: str
    """the pydantic class of its database"""
    data: str
    """the file of its data, in the domain's folder"""
    tools: str
    """the list of tool definitions"""
    writes: frozenset[str]
    generic: frozenset[str] = frozenset()
    search: str = ""
    """the definition of the tool that searches the domain's documents, where its policy is a knowledge base"""
    prefix: str = ""
    """what the package puts before the tools' official names"""

    def class_of(self, tool: str) -> ToolClass:
        """What a tool may do to the state."""
        if tool in self.writes:
            return ToolClass.WRITE
        return ToolClass.GENERIC if tool in self.generic else ToolClass.READ


PAPER_REVISION = "sierra-research/tau2-bench@377cecff"
"""the revision that the package ships of the domains of August 2025, those of the paper; scores of others differ"""


@dataclass(frozen=True)
class Domain:
    """One domain: the agent's side, and where users have tools of their own the user's side."""

    name: str
    """the official one, and the folder of its data"""
    agent: Side
    user: Side | None = None
    """dual control: what the user does on their own device"""
    policy: tuple[tuple[str, str], ...] = (("", "policy.txt"),)
    """(tag around it, file) of the texts that make up the policy"""
    sync: str = ""
    """the package's class that keeps both sides' databases in line; "" where both act on one"""
    documents: str = ""
    """the class of the knowledge base"""
    unseen: frozenset[str] = frozenset()
    """tables that the package's database has and upstream's has not, so that what a tool puts there is lost upstream:
    nothing in them is part of the end state"""
    retrieval: str = ""
    """the official name of how the agent gets at the knowledge base"""
    whole_numbers: bool = False
    """see `ToolSpec.whole_numbers`: ids are made of the text of a number, and the gold has whole ones"""
    revision: str = PAPER_REVISION

    @property
    def writes(self) -> frozenset[str]:
        """Every tool that may change the state, whosever it is."""
        return self.agent.writes | (self.user.writes if self.user else frozenset())


CALCULATE, HANDOVER = "calculate", "transfer_to_human_agents"
"""tools of the paper's domains that are no methods of their toolkits. Handing over is generic: here an episode ends by
the user's transfer token, which answers the agent's words"""
_GENERIC = frozenset({CALCULATE, HANDOVER})

RETAIL = Domain(
    name="retail",
    agent=Side(
        toolkit="retail.RetailAgentTools:RetailAgentTools",
        database="retail.data_model:RetailDB",
        data="db.json",
        tools="retail.tools:all_retail_tools",
        writes=frozenset(
            {
                "cancel_pending_order",
                "exchange_delivered_order_items",
                "modify_pending_order_address",
                "modify_pending_order_items",
                "modify_pending_order_payment",
                "modify_user_address",
                "return_delivered_order_items",
            }
        ),
        generic=_GENERIC,
    ),
)
AIRLINE = Domain(
    name="airline",
    agent=Side(
        toolkit="airline.AirlineAgentTools:AirlineAgentTools",
        database="airline.data_model:FlightDB",
        data="db.json",
        tools="airline.tools:all_airline_tools",
        writes=frozenset(
            {
                "book_reservation",
                "cancel_reservation",
                "send_certificate",
                "update_reservation_baggages",
                "update_reservation_flights",
                "update_reservation_passengers",
            }
        ),
        generic=_GENERIC,
    ),
)
TELECOM = Domain(
    name="telecom",
    agent=Side(
        toolkit="telecom.TelecomAgentTools:TelecomAgentTools",
        database="telecom.data_model:TelecomDB",
        data="db.toml",
        tools="telecom.tools:all_telecom_agent_tools",
        writes=frozenset(
            {
                "disable_roaming",
                "enable_roaming",
                "refuel_data",
                "resume_line",
                "send_payment_request",
                "suspend_line",
            }
        ),
        generic=_GENERIC,
    ),
    user=Side(
        toolkit="telecom.TelecomUserTools:TelecomUserTools",
        database="telecom.user_data_model:TelecomUserDB",
        data="user_db.toml",
        tools="telecom.user_tools:all_telecom_user_tools",
        writes=frozenset(
            {
                "connect_vpn",
                "disconnect_vpn",
                "grant_app_permission",
                "make_payment",
                "reboot_device",
                "reseat_sim_card",
                "reset_apn_settings",
                "set_apn_settings",
                "set_network_mode_preference",
                "toggle_airplane_mode",
                "toggle_data",
                "toggle_data_saver_mode",
                "toggle_roaming",
                "toggle_wifi",
                "toggle_wifi_calling",
            }
        ),
    ),
    policy=(("main_policy", "main_policy.txt"), ("tech_support_policy", "tech_support_manual.txt")),
    sync="telecom.environment:Environment",
)
BANKING = Domain(
    name="banking_knowledge",
    agent=Side(
        toolkit="banking.BankingAgentTools:BankingAgentTools",
        database="banking.data_model:TransactionalDB",
        data="db.json",
        tools="banking.tools:all_banking_agent_tools",
        writes=frozenset(
            {
                "call_discoverable_agent_tool",
                "change_user_email",
                "give_discoverable_user_tool",
                "log_verification",
                "unlock_discoverable_agent_tool",  # upstream's mark; what it changes is no part of the end state
            }
        ),
        generic=frozenset({HANDOVER}),
        search="banking.tools:banking_grep",
        prefix="banking_",
    ),
    user=Side(
        toolkit="banking.BankingUserTools:BankingUserTools",
        database="banking.data_model:TransactionalDB",
        data="db.json",
        tools="banking.user_tools:all_banking_user_tools",
        writes=frozenset(
            {
                "apply_for_credit_card",
                "call_discoverable_user_tool",
                "request_human_agent_transfer",
                "submit_referral",
                "submit_transaction",
            }
        ),
        prefix="banking_",
    ),
    policy=(("", "prompts/grep_only.md"),),
    documents="banking.data_model:KnowledgeBase",
    unseen=frozenset({"interest_discrepancy_reports"}),
    retrieval="grep_only",  # upstream's variant without embeddings, a sandbox or a further package
    whole_numbers=True,
    revision="sierra-research/tau2-bench@fcc9ed68",
)
"""beyond the paper. Its agent finds most tools in documents: it unlocks them and calls them by name, and gives users
tools of theirs"""
DOMAINS: Mapping[str, Domain] = {domain.name: domain for domain in (RETAIL, AIRLINE, TELECOM, BANKING)}
