"""What an answer adds to a list is seen, and nothing else that is written around one."""

from __future__ import annotations

import pytest

from openk2.worlds.apps.lists import added


@pytest.mark.parametrize(
    "text, more",
    [
        ("There are 2: Ada Byron, Bob Stone.", None),
        ("There are 3: Ada Byron, Bob Stone, Quillon Varga.", "Quillon Varga"),
        ("There are 3: Quillon Varga, Ada Byron and Bob Stone.", "Quillon Varga"),
        ("These are Ada Byron, Bob Stone and Zephyrine.", "Zephyrine"),
        ("- Ada Byron\n- **Quillon Varga** (pending)\n- Bob Stone", "Quillon Varga"),
        ("1. Ada Byron (ORD-1)\n2. Bob Stone (ORD-2)\n3. ORD-7719", "ORD-7719"),
        ("Sure, Ada Byron and Bob Stone are pending, I checked it.", None),
        ("Hello! Ada Byron (Pending) and Bob Stone (ORD-2), both since Monday, May 4.", None),
        ("Byron, Ada; Stone, Bob", None),
        ("Ada Byron and Bob Stone. Best Regards, Quillon Varga", None),
    ],
)
def test_what_is_added_to_a_list(text: str, more: str | None) -> None:
    known = '{"id": "ORD-1", "name": "Ada Byron", "status": "pending"} {"id": "ORD-2", "name": "Bob Stone"}'
    assert added(text, ["Ada Byron", "Bob Stone"], lambda: known) == more


TEAS = '{"id": "TEA-1", "name": "Assam", "start_time": "09:00", "unit_price": 4.5} {"id": "TEA-2", "name": "Sencha"}'


@pytest.mark.parametrize(
    "text",
    [
        "1. **Assam**\n   - Start Time: 09:00\n   - Unit Price: $4.50\n2. **Sencha**",
        "* **Assam**\n  * **Unit Price:** $4.50\n* **Sencha**",
        "- Assam\n- Sencha\n\nWould you like me to:\n- Book one of them\n- Show more details",
        "- Assam\n- Sencha\n- Total: 2",
        "Done! Here's a summary:\n- Updated what you asked for\n- Listed below: Assam and Sencha",
        "- Assam (TEA-1)\n- Sencha (TEA-2)\n\nThank you!",
        "There are Assam and Sencha, Thank you!",
        "- Tea 1: Assam\n- Tea 2: Sencha",
        "- Both Assam and Sencha are there.",
        "- Results: Assam, Sencha",
        "- Assam\n- Sencha\n- Nothing else is in stock",
        "1. First, I listed them.\n2. Assam and Sencha are there.",
        "Assam and Sencha; Please ask if you need more.",
        "After checking the Inventory, Assam and Sencha are left.",
        "I found Two, Assam and Sencha.",
        "For Black Tea, Assam; for green, Sencha.",
        "| Name | Price |\n|---|---|\n| Assam | 4.50 |\n| Sencha | 9 |",
        "| Name | Price |\n|---|---|\n| Assam | 4.50 |\n| Sencha | 9 |\n| Total | 13.50 |",
        "Assam\nSencha\nLet me know if you need more.",
        "🍵 Assam\n🍵 Sencha",
        "- [x] Assam\n- [ ] Sencha",
    ],
)
def test_what_is_written_around_a_list_is_no_name(text: str) -> None:
    assert added(text, ["Assam", "Sencha"], lambda: TEAS) is None


@pytest.mark.parametrize(
    "form",
    [
        "There are Assam, Sencha and {}.", "There are Assam, Sencha & {}.", "Assam, Sencha plus {}.",
        "Assam, Sencha, as well as {}.", "Assam and Sencha as well as {}.", "Assam; Sencha; also {}", "Assam/Sencha/{}",
        "Assam\nSencha\n{}", "- Assam\n- Sencha\n- {}", "+ Assam\n+ Sencha\n+ {}", "- `Assam`\n- `Sencha`\n- `{}`",
        '- "Assam"\n- "Sencha"\n- "{}"', "- [ ] Assam\n- [ ] Sencha\n- [ ] {}", "a) Assam\nb) Sencha\nc) {}",
        "– Assam\n– Sencha\n– {}", "1.Assam\n2.Sencha\n3.{}", "Assam,Sencha,{}", '"Assam", "Sencha", "{}"',
        "- ✅ Assam\n- ✅ Sencha\n- ✅ {}", "- Assam: 30 g\n- Sencha: 9 g\n- {}: 9 g", "Assam 🍵, Sencha 🍵, {} 🍵",
        "- Assam - 30 g\n- {} - 9 g\n- Sencha - 2 g", "| Name |\n|---|\n| Assam |\n| {} |\n| Sencha |",
        "There are 3: {}, Assam and Sencha.", "**Assam**, **Sencha** and **{}**",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["Oolong", "Écru Blend", "TEA-9"])
def test_a_name_from_nowhere_is_seen_in_all_forms_of_lists(form: str, name: str) -> None:
    assert added(form.format(name), ["Assam", "Sencha"], lambda: TEAS) == name
