"""A relation file with nothing wrong in it."""

GOOD = """
name = "shoe_size"
object_type = "number"
aliases = ["size of shoe"]
questions = ["Q1 {subject}?", "Name it for {subject}.", "Q3 {subject}?", "Q4 {subject}?", "Q5 {subject}?"]
cloze = ["The shoe size of {subject} is"]
held_out_questions = ["H1 {subject}?", "H2 {subject}?", "H3 {subject}?"]
held_out_cloze = ["Shoes for {subject} come in size"]
neighbours = ["A", "B", "C", "D", "E", "F", "G", "H", "I", "J"]
"""
