"""What is put around a text."""

from sie_server.models.prompts import Prompts

E5 = Prompts(query="query: {text}", document="passage: {text}")
INSTRUCTED = Prompts(query="Instruct: {instruction}\nQuery: {text}", default_instruction="find it")


def test_queries_and_documents_have_templates_of_their_own() -> None:
    assert E5.shape("a", is_query=True, instruction=None) == "query: a"
    assert E5.shape("a", is_query=False, instruction=None) == "passage: a"


def test_a_model_without_templates_sees_the_text_as_it_is() -> None:
    assert Prompts().shape(" a\n", is_query=True, instruction=None) == " a\n"


def test_an_instruction_goes_where_the_template_has_its_place() -> None:
    assert INSTRUCTED.shape("a", is_query=True, instruction="sort") == "Instruct: sort\nQuery: a"
    assert INSTRUCTED.shape("a", is_query=True, instruction=None) == "Instruct: find it\nQuery: a"


def test_documents_do_not_get_the_instruction_of_queries() -> None:
    assert INSTRUCTED.shape("a", is_query=False, instruction=None) == "a"


def test_an_instruction_without_a_template_stands_before_the_text() -> None:
    assert Prompts().shape("a", is_query=False, instruction="sort") == "sort a"


def test_a_template_without_a_place_for_the_instruction_leaves_it_out() -> None:
    assert E5.shape("a", is_query=True, instruction="sort") == "query: a"


def test_braces_in_a_text_are_the_texts_own() -> None:
    assert E5.shape("{text} {instruction}", is_query=True, instruction="sort") == "query: {text} {instruction}"
    assert INSTRUCTED.shape("{instruction}", is_query=True, instruction="s") == "Instruct: s\nQuery: {instruction}"


def test_braces_in_an_instruction_are_its_own() -> None:
    assert INSTRUCTED.shape("a", is_query=True, instruction="{text}!") == "Instruct: {text}!\nQuery: a"


def test_what_stands_before_a_text_ends_where_the_text_begins() -> None:
    assert E5.before(is_query=True, instruction="sort") == "query: "
    assert INSTRUCTED.before(is_query=True, instruction="{text}!") == "Instruct: {text}!\nQuery: "
    assert INSTRUCTED.before(is_query=False, instruction=None) == ""
    assert Prompts().before(is_query=False, instruction="sort") == "sort "
