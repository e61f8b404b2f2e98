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

    def class_of(self, tool: str) -> ToolClass:
        """What a tool may do to the state."""
        if tool in self.writes:
            return ToolClass.WRITE
        return ToolClass.GENERIC if tool in self.generic else ToolClass.READ


@dataclass(frozen=True)
class Domain:
    """One domain: the agent's side, and where users have tools of their own the user's side."""

    name: str
    agent: Side
    user: Side | None = None
    """dual control: what the user does on their own device"""
    policy: tuple[tuple[str, str], ...] = (("", "policy.txt"),)
    """(tag around it, file) of the texts that make up the policy"""


CALCULATE, HANDOVER = "calculate", "transfer_to_human_agents"
"""tools of every domain that are no methods of its toolkit. Handing over is generic as well: here an episode ends by
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
)
DOMAINS: Mapping[str, Domain] = {domain.name: domain for domain in (RETAIL, AIRLINE, TELECOM)}
